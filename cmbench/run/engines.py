"""Engines by name, opened and closed."""

from collections.abc import Iterator
from contextlib import contextmanager

from cmbench.core.errors import unknown_name
from cmbench.run.engine_local import LocalEngine
from cmbench.run.engine_ray import RayEngine, RayOptions
from cmbench.run.progress import Board
from cmbench.run.workbench import Workbench

__all__ = ["open_engine"]


@contextmanager
def open_engine(
    name: str, bench: Workbench, board: Board, options: RayOptions
) -> Iterator[LocalEngine]:
    """The engine called `local` or `ray`, closed at the end, however it came.

    Raises:
        UserError: For another name, or a Ray cluster that does not answer.
        Pending: If Ray is not installed.
    """
    if name not in ("local", "ray"):
        raise unknown_name("engine", name, ("local", "ray"))
    engine = RayEngine(bench, board, options) if name == "ray" else LocalEngine(bench, board)
    try:
        yield engine
    finally:
        engine.close()
