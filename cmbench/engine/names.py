"""Names of the engines, read from file names so that nothing heavy is imported."""

from pathlib import Path

__all__ = ["engine_names"]


def engine_names() -> list[str]:
    """Lists all engines: NAME for each file `NAME_engine.py` in this folder."""
    files = Path(__file__).parent.glob("*_engine.py")
    return sorted(file.stem.removesuffix("_engine") for file in files)
