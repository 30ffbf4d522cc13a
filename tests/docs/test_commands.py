"""Every `cmbench` command that the documentation and `--help` print is run as it stands there.

They run in one folder where what they name has been made: small samples, statistics, results and
trainings. What would take minutes is run smaller, as said in SMALLER; what can't be run here at
all is in LEFT_OUT with its reason, and its words are still held against the command line.
"""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from typer.main import get_command

from cmbench.cli.examples import EXAMPLES
from cmbench.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = get_command(app)
LEFT_OUT = {
    r"report --serve": "serves until Ctrl-C: tests/report/test_site.py",
    r"(run|check|plan) .*--engine (ray|slurm)": "needs a cluster: tests/run/test_ray.py",
    r".*--device cuda": "needs a GPU",
    r"models ship": "writes beside the adapter: tests/run/test_ship_weights.py",
    r"assets path": "needs the file to be here: tests/assets",
    r"assets fetch": "needs the network: tests/assets/test_download.py has a server",
    r"assets add": "needs the file itself: tests/assets",
    r"score .*--features inception": "needs Inception's weights: tests/trust",
    r"(score|neighbours) .*cifar10": "needs CIFAR-10, the first with a reference file",
    r"run cifar10_small": "needs CIFAR-10",
    r"train .*cifar10": "needs CIFAR-10: tests/train/test_in_step.py",
}
SMALLER = {
    "run digits_nfe": "run digits_nfe --dry-run",
    "run cifar10_nfe": "run cifar10_nfe --dry-run",
    "run suites/cifar10_nfe_paper.yaml": "run cifar10_nfe_paper --dry-run",
    "verify results/": "verify results/mine --fraction 0.01",
}
MINE = """\
suite: mine
dataset: digits
images: {count: 24}
features: digits_classifier
metrics: [frechet_distance]
runs:
  - model: oracle/digits
    label: oracle
    sampler: heun
    nfe: [3]
  - model: edm/digits
    train: {images: 512}
    nfe: [3]
"""


def _printed(page: Path) -> Iterator[str]:
    """Command lines of a page's blocks, their comments off and continued lines joined."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```(?:\w*)\n(.*?)^```|((?:^    .*\n)+)", text, re.M | re.S):
        for line in "".join(block).splitlines():
            line = re.sub(r"^(?:\w+=\S+ )*", "", line.strip())
            if line.startswith("cmbench "):
                yield " ".join(re.sub(r"\s+#.*", "", line).split())


COMMANDS = {
    command: where
    for where, lines in [
        *((page.name, _printed(page)) for page in PAGES),
        *((f"{name} --help", iter(examples)) for name, examples in EXAMPLES.items()),
    ]
    for command in lines
}


def _reason(command: str) -> str | None:
    words = command.removeprefix("cmbench ")
    return next((why for what, why in LEFT_OUT.items() if re.match(what, words)), None)


def _paths(command: click.Command, path: str = "") -> Iterator[str]:
    inner = getattr(command, "commands", None)
    for name in inner or ():
        yield from _paths(inner[name], f"{path}{name} ")
    if not inner:
        yield path.strip()


def test_every_command_has_examples() -> None:
    assert sorted(_paths(COMMAND)) == sorted(EXAMPLES), "cmbench/cli/examples.py"


def test_what_is_left_out_or_shortened_is_still_printed() -> None:
    for pattern in LEFT_OUT:
        assert any(re.match(f"cmbench {pattern}", c) for c in COMMANDS), pattern
    for start in SMALLER:
        assert any(c.startswith(f"cmbench {start}") for c in COMMANDS), start


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with all that the commands name."""
    folder = tmp_path_factory.mktemp("commands")
    before, environment = Path.cwd(), dict(os.environ)
    os.environ["CMBENCH_CACHE"] = str(folder / "cache")
    os.environ["HOME"] = str(folder)
    os.chdir(folder)
    (folder / "suites").mkdir()
    (folder / "suites" / "mine.yaml").write_text(MINE)
    for place in ("my_suite.yaml", "suites/stripes.yaml"):
        (folder / place).write_text(MINE.replace("suite: mine", f"suite: {Path(place).stem}"))
    (folder / "suites" / "other.yaml").write_text(MINE.replace("suite: mine", "suite: other"))
    tutorial = (ROOT / "docs" / "tutorial.md").read_text()
    first = re.search(r"```yaml\n(suite: first.*?)```", tutorial, re.S)
    assert first is not None
    (folder / "first.yaml").write_text(first[1].replace("count: 500", "count: 8"))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "samples.npz", pixels)
    (folder / "cifar10.zip").write_bytes((folder / "samples.npz").read_bytes())
    (folder / "pictures.zip").write_bytes((folder / "samples.npz").read_bytes())
    for source in (ROOT / "models").glob("*/recipes/*digits*.yaml"):
        recipe = yaml.safe_load(source.read_text())
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(yaml.safe_dump(recipe | {"images": 2 * recipe["batch"]}))
    for args in (
        "run suites/mine.yaml -q", "run suites/other.yaml -q",
        "stats build ./samples.npz --out digits.npz --features digits_classifier",
        "train models/edm/recipes/digits.yaml --out runs/edm -q",
        "train models/consistency/recipes/digits.yaml --out runs/cd --teacher runs/edm -q",
        "models new my_model",
    ):  # fmt: skip
        assert _invoke(args.split()) == 0, args
    _own_checkpoint(folder)
    for name in ("digits_nfe", "cifar10_nfe"):
        shutil.copytree(folder / "results/mine", folder / "results" / name)
    yield folder
    os.chdir(before)
    os.environ.clear()
    os.environ.update(environment)


def _own_checkpoint(folder: Path) -> None:
    """The adapter of docs/checkpoints.md, and the run that its next block saves."""
    text = (ROOT / "docs" / "checkpoints.md").read_text("utf-8")
    adapter, save = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)[:2]
    (folder / "models" / "my_diffusion.py").write_text(adapter)
    exec(compile(save, "checkpoints.md", "exec"), {})


def _invoke(args: list[str]) -> int:
    found = CliRunner().invoke(COMMAND, args)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code


def test_commands_of_other_programs_name_what_there_is() -> None:
    makefile, project = (ROOT / "Makefile").read_text(), (ROOT / "pyproject.toml").read_text()
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    for target in re.findall(r"^(?:    )?make (\S+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for script in re.findall(r"python ((?:benchmarks|docs)/\w+\.py)", text):
        assert (ROOT / script).is_file(), script
    for extra in re.findall(r"pip install 'cmbench\[(\w+)\]'", text):
        assert re.search(rf"^{extra} = \[", project, re.M), extra


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_printed_command_is_one(command: str) -> None:
    parse_command(shlex.split(command)[1:])


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(c for c in COMMANDS if _reason(c) is None))
def test_a_printed_command_does_what_it_says(command: str, place: Path) -> None:
    args = [_with_cell(word) for word in shlex.split(command)[1:]]
    for start, smaller in SMALLER.items():
        if command.startswith(f"cmbench {start}"):
            args = smaller.split()
    if args[:2] == ["models", "new"]:
        shutil.rmtree(place / "elsewhere", ignore_errors=True)
        for family in ("models/my_model", "suites/my_model.yaml", "tests"):
            path = place / family
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    code = _invoke(args)
    assert code == 0 or (code == 1 and args[0] in ("doctor", "compare")), code


def _with_cell(word: str) -> str:
    """`results/mine:CELL` with a cell that is there."""
    folder, separator, cell = word.rpartition(":")
    if not separator or cell != "CELL":
        return word
    return f"{folder}:{min(path.stem for path in Path(folder).glob('records/*.json'))}"


def parse_command(args: list[str]) -> None:
    """Reads the words as the command line does, running nothing."""
    command, parent = COMMAND, None
    while args and getattr(command, "commands", None):
        parent = click.Context(command, parent, info_name=args[0])
        command, args = command.commands[args[0]], args[1:]
    command.make_context("cmbench", list(args), parent=parent)
