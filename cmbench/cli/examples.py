"""Examples at the end of every command's `--help`; the tests run each of them."""

import typer

__all__ = ["EXAMPLES", "teach"]

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "cmbench run digits_nfe",
        "cmbench run suites/mine.yaml --data cifar10=cifar10.zip",
        "cmbench run digits_nfe --dry-run",
        "cmbench run suites/mine.yaml --strict --json --quiet",
    ),
    "plan": ("cmbench plan digits_nfe", "cmbench plan suites/mine.yaml --json"),
    "check": ("cmbench check suites/mine.yaml", "cmbench check digits_nfe --json"),
    "doctor": ("cmbench doctor", "cmbench doctor --no-network --json"),
    "report": (
        "cmbench report results/digits_nfe",
        "cmbench report --serve",
        "cmbench report --site site",
        "cmbench report --model edm/digits",
    ),
    "train": (
        "cmbench train models/edm/recipes/digits.yaml --out runs/edm",
        "cmbench train models/consistency/recipes/digits.yaml --out runs/cd --teacher runs/edm",
        "cmbench train models/consistency/recipes/cifar10_cd_l1.yaml "
        "models/consistency/recipes/cifar10_cd_l2.yaml --out runs/cd_two",
    ),
    "edit": (
        "cmbench edit consistency/digits --weights runs/cd --task inpaint --out edited.png",
        "cmbench edit consistency/digits --weights runs/cd --task interpolate --count 4",
    ),
    "search-steps": ("cmbench search-steps consistency/digits --weights runs/cd --nfe 2",),
    "models list": ("cmbench models list", "cmbench models list --json"),
    "models show": ("cmbench models show edm/digits",),
    "models check": (
        "cmbench models check edm/digits",
        "cmbench models check edm/digits --weights runs/edm --json",
    ),
    "models new": (
        "cmbench models new my_model",
        "cmbench models new my_gan --kind oneshot --folder elsewhere",
    ),
    "models ship": ("cmbench models ship edm/digits --run runs/edm",),
    "assets list": ("cmbench assets list", "cmbench assets list --here --json"),
    "assets show": ("cmbench assets show inception-2015-12-05",),
    "assets fetch": (
        "cmbench assets fetch inception-2015-12-05",
        "cmbench assets fetch jcm-cd-lpips --mirror /mnt/weights",
    ),
    "assets add": ("cmbench assets add cold-celeba-blur ~/Downloads/model.pt",),
    "assets path": ("cmbench assets path inception-2015-12-05",),
    "assets verify": ("cmbench assets verify",),
    "assets prune": ("cmbench assets prune", "cmbench assets prune --yes"),
    "score": (
        "cmbench score --images samples.npz --reference digits --features digits_classifier",
        "cmbench score --images samples.npz --reference digits.npz --features digits_classifier "
        "--metrics frechet_distance --json",
    ),
    "stats build": (
        "cmbench stats build digits --out digits.npz --features digits_classifier",
        "cmbench stats build ./samples.npz --out samples_stats.npz --features digits_classifier",
    ),
    "stats convert": ("cmbench stats convert digits.npz adm.npz --to adm",),
    "stats show": ("cmbench stats show digits.npz",),
    "compare": ("cmbench compare results/mine results/other",),
    "explain": ("cmbench explain results/mine:CELL results/other:CELL",),
    "verify": ("cmbench verify results/mine --fraction 0.5",),
    "neighbours": (
        "cmbench neighbours --images samples.npz --reference digits "
        "--features digits_classifier --out copies.png",
    ),
    "disclose": ("cmbench disclose results/mine",),
}
"""Examples by command; tests/docs/test_commands.py creates the files that they name."""


def teach(app: typer.Typer, path: str = "") -> None:
    """Appends the examples to the help of each command."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        examples = EXAMPLES.get(f"{path}{name}")
        if examples:
            command.epilog = "\n\n".join(["**Examples**", *(f"`{e}`" for e in examples)])
    for group in app.registered_groups:
        if group.typer_instance is not None and group.name:
            teach(group.typer_instance, f"{path}{group.name} ")
