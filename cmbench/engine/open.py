"""Engines by name, opened and closed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cmbench.core.errors import unknown_name
from cmbench.engine.context import JobContext
from cmbench.engine.local_engine import LocalEngine
from cmbench.engine.progress import Progress
from cmbench.engine.ray_engine import RayEngine, RayOptions
from cmbench.engine.slurm_engine import SlurmEngine, SlurmOptions
from cmbench.engine.supervised_engine import SupervisedEngine

__all__ = ["EngineOptions", "open_engine"]


@dataclass(frozen=True)
class EngineOptions:
    """What a job gets, and where; each engine reads what is its own.

    Args:
        address: A running Ray cluster (`auto`, `HOST:6379`, `ray://...`); none starts one here.
        cpus: CPUs a job gets; its threads are as many.
        gpus: GPUs a job that runs networks gets.
        timeout: Seconds without a sign of life after which a job counts as hung; none: never.
        workers: Tasks of the Slurm array.
        slurm: submitit's parameters, such as `partition`.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    timeout: float | None = None
    workers: int = 1
    slurm: dict[str, str] = field(default_factory=dict)


@contextmanager
def open_engine(
    name: str, context: JobContext, progress: Progress, options: EngineOptions
) -> Iterator[LocalEngine]:
    """The engine called `local`, `ray` or `slurm`, closed at the end, however it came.

    Raises:
        UserError: For another name, a Ray cluster that does not answer, or no Slurm here.
        Pending: If Ray or submitit is not installed.
    """
    engine = _engine(name, context, progress, options)
    try:
        yield engine
    finally:
        engine.close()


def _engine(
    name: str, context: JobContext, progress: Progress, options: EngineOptions
) -> LocalEngine:
    if name == "local":
        if options.timeout is None:
            return LocalEngine(context, progress)
        return SupervisedEngine(context, progress, options.timeout)
    if name == "ray":
        chosen = RayOptions(options.address, options.cpus, options.gpus, options.timeout)
        return RayEngine(context, progress, chosen)
    if name == "slurm":
        return SlurmEngine(context, progress, _slurm(options))
    raise unknown_name("engine", name, ("local", "ray", "slurm"))


def _slurm(options: EngineOptions) -> SlurmOptions:
    return SlurmOptions(
        workers=options.workers,
        cpus=max(1, math.ceil(options.cpus)),
        gpus=math.ceil(options.gpus),
        timeout=options.timeout,
        parameters=options.slurm,
    )
