"""Shell completion: names are read from files without heavy imports, so that a Tab is quick."""

from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = [
    "DEVICES",
    "EDITS",
    "FORMATS",
    "MODEL_KINDS",
    "complete_asset",
    "complete_component",
    "complete_engine",
    "complete_features",
    "complete_model",
    "complete_results",
    "complete_suite",
    "one_of",
]

DEVICES = ("auto", "cpu", "cuda")
EDITS = ("inpaint", "colourise", "super-resolve", "interpolate", "denoise")
FORMATS = ("cmbench", "compact", "adm", "edm", "pytorch-fid", "clean-fid", "score-sde")
MODEL_KINDS = ("denoiser", "restorer", "oneshot")


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Returns a completer of fixed words."""
    fixed = list(words)

    def complete(incomplete: str) -> list[str]:
        return _beginning(fixed, incomplete)

    return complete


def complete_engine(incomplete: str) -> list[str]:
    """Completes names of engines."""
    from cmbench.engine.names import engine_names

    return _beginning(engine_names(), incomplete)


def complete_component(kind: str) -> Callable[[str], list[str]]:
    """Returns a completer of the components of one kind, plugins included."""

    def complete(incomplete: str) -> list[str]:
        from cmbench.core.loader import available

        return _beginning((item.name for item in available(kind)), incomplete)

    return complete


def complete_features(incomplete: str) -> list[str]:
    """Completes the last of several feature extractors, separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in complete_component("features")(last)]


def complete_suite(incomplete: str) -> list[str]:
    """Completes names of suites and paths of YAML files."""
    from cmbench.core.loader import roots

    names = {file.stem for root in roots() for file in (root / "suites").glob("*.yaml")}
    place = Path(incomplete).parent
    files = {str(f) + ("/" if f.is_dir() else "") for f in place.glob("*")
             if f.is_dir() or f.suffix in (".yaml", ".yml")}  # fmt: skip
    return _beginning([*sorted(names), *(sorted(files) if incomplete else [])], incomplete)


def complete_model(incomplete: str) -> list[str]:
    """Completes `family/card`, or `family` for a family without cards."""
    from cmbench.core.errors import CmbenchError
    from cmbench.core.loader import available
    from cmbench.core.yaml_source import read_yaml

    models = []
    for item in available("model"):
        family = item.path.name == "adapter.py"
        file = item.path.parent / ("cards.yaml" if family else f"{item.path.stem}.cards.yaml")
        try:
            cards = read_yaml(file).data if file.is_file() else {}
        except CmbenchError:
            continue  # the other families are still offered
        names = sorted(cards) if isinstance(cards, dict) else []
        models += [f"{item.name}/{name}" for name in names] or [item.name]
    return _beginning(models, incomplete)


def complete_asset(incomplete: str) -> list[str]:
    """Completes names in the catalogue of official files."""
    from cmbench.assets.catalogue import catalogue

    return _beginning(sorted(catalogue()), incomplete)


def complete_results(incomplete: str) -> list[str]:
    """Completes results folders below the working directory, and paths of other folders."""
    results = [str(folder.parent) for folder in Path().glob("*/*/records")]
    typed = Path(incomplete).parent
    folders = [f"{f}/" for f in typed.glob("*") if f.is_dir()] if incomplete else []
    return _beginning([*sorted(results), *sorted(folders)], incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
