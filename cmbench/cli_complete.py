"""What the shell's completion offers for suites and models."""

from pathlib import Path

__all__ = ["complete_model", "complete_suite"]


def complete_suite(incomplete: str) -> list[str]:
    """Names of suites, and YAML files below the working directory as far as they are typed."""
    from cmbench.core.loader import roots

    names = {file.stem for root in roots() for file in (root / "suites").glob("*.yaml")}
    place = Path(incomplete).parent
    files = {str(f) + ("/" if f.is_dir() else "") for f in place.glob("*")
             if f.is_dir() or f.suffix in (".yaml", ".yml")}  # fmt: skip
    offered = sorted(names) + (sorted(files) if incomplete else [])
    return [word for word in offered if word.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Names of cards."""
    from cmbench.suite.cards import list_cards

    return sorted(c.full_name for c in list_cards() if c.full_name.startswith(incomplete))
