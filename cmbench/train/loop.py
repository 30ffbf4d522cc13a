"""The training loop: resumes bit for bit on one device, stops cleanly, and never saves NaN."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cmbench.core.errors import Interrupted
from cmbench.core.interrupts import DeferredInterrupt
from cmbench.datasets.base import ImageSet
from cmbench.train.objectives.base import Shared
from cmbench.train.recipe import Recipe
from cmbench.train.trainer import DivergedError, Trainer, TrainResult, TrainState

__all__ = ["DivergedError", "Student", "TrainResult", "TrainState", "train", "train_in_step"]


def train(
    recipe: Recipe,
    *,
    dataset_images: ImageSet,
    teacher: nn.Module | None = None,
    start: nn.Module | None = None,
    folder: Path,
    device: torch.device,
    progress: Callable[[TrainState], None] | None = None,
) -> TrainResult:
    """Trains a recipe in `folder`, resuming from its last intact checkpoint.

    Args:
        recipe: The recipe to train.
        dataset_images: The training images.
        teacher: The teacher's module, for objectives that need one.
        start: The module whose weights the training continues, if the recipe names one.
        folder: Folder of checkpoints, log and weights.
        device: Device of the networks.
        progress: Called after every step.
    """
    student = Student(recipe, folder, start)
    return train_in_step(
        [student], dataset_images=dataset_images, teacher=teacher, device=device, progress=progress
    )[0]


@dataclass(frozen=True)
class Student:
    """One of several students trained in step: recipe, folder, and the module it continues."""

    recipe: Recipe
    folder: Path
    start: nn.Module | None = None


def train_in_step(
    students: Sequence[Student],
    *,
    dataset_images: ImageSet,
    teacher: nn.Module | None,
    device: torch.device,
    progress: Callable[[TrainState], None] | None = None,
) -> list[TrainResult]:
    """Trains students of one teacher together; the shared part of their loss is computed once.

    The weights equal those of separate runs bit for bit. Each student resumes from its own last
    checkpoint, and students that are behind catch up first. If one diverges, the others finish.

    Args:
        students: Students whose recipes `recipe.require_alike` accepts.
        dataset_images: The training images.
        teacher: The teacher's module, for objectives that need one.
        device: Device of the networks.
        progress: Called after every step of every student.

    Raises:
        UserError: If the images, the teacher or a start do not suit a recipe's model.
        DivergedError: If a loss is NaN or infinite, after the others have finished; names the
            step and the last good checkpoint.
    """
    shared = Shared()
    trainers = [
        Trainer(s.recipe, dataset_images, teacher, s.start, s.folder, device, shared)
        for s in students
    ]
    for trainer in trainers:
        trainer.resume()
    _run(trainers, progress)
    return [trainer.finish() for trainer in trainers]


def _run(trainers: Sequence[Trainer], progress: Callable[[TrainState], None] | None) -> None:
    """Trains to the end; an interrupt takes effect between two steps, after a checkpoint."""
    start = time.monotonic()
    running = list(trainers)
    diverged: list[DivergedError] = []
    with DeferredInterrupt() as interrupt:
        while running := [t for t in running if t.step < t.recipe.steps]:
            behind = min(t.step for t in running)
            for trainer in [t for t in running if t.step == behind]:
                try:
                    loss = trainer.advance()
                except DivergedError as error:
                    diverged.append(error)
                    running.remove(trainer)
                    continue
                if progress is not None and trainer.ranks.is_first:
                    _show(progress, trainer.state(loss, time.monotonic() - start), running)
            if interrupt.asked:
                _save(running)
                raise Interrupted
    for trainer in trainers if diverged else ():
        if trainer.step == trainer.recipe.steps:
            trainer.finish()
    if diverged:
        raise diverged[0]


def _show(
    progress: Callable[[TrainState], None], state: TrainState, running: Sequence[Trainer]
) -> None:
    try:
        progress(state)
    except OSError:  # the terminal was closed; its SIGHUP may arrive only later
        _save(running)
        raise


def _save(trainers: Sequence[Trainer]) -> None:
    for trainer in trainers:
        trainer.save()
