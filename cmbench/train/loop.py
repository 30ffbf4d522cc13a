"""The training loop: resumes to the bit on one device, stops cleanly, and never saves NaN."""

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from cmbench.core.digests import digest
from cmbench.core.errors import CmbenchError, Interrupted, UserError
from cmbench.core.files import atomic_file, write_bytes, write_json
from cmbench.core.images import image_grid, to_images, to_pixels
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.datasets.base import ImageSet
from cmbench.denoise.model import Model
from cmbench.record.schema import TrainingLog, TrainingPoint
from cmbench.samplers.base import BoundGenerator, Sampler
from cmbench.train.checkpoint import latest_checkpoint, save_checkpoint
from cmbench.train.draws import Draws
from cmbench.train.ema import WeightAverage
from cmbench.train.muon import Muon
from cmbench.train.objectives.base import Loss, Objective, Setup, Shared
from cmbench.train.parallel import Ranks
from cmbench.train.recipe import Recipe

__all__ = ["DivergedError", "Student", "TrainResult", "TrainState", "train", "train_in_step"]


class DivergedError(CmbenchError):
    """Loss or gradient became NaN or infinite: training stops, the last checkpoint stays."""


@dataclass(frozen=True)
class TrainState:
    """How far the training of a recipe is: what progress shows."""

    recipe: str
    step: int
    images: int
    loss: float
    seconds: float
    extra: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """What a training left: EMA weights (safetensors), its log, and what it spent."""

    weights: Path
    log: Path
    steps: int
    images: int


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
    """Trains a recipe in `folder`, going on from its last whole checkpoint.

    Args:
        recipe: What to train.
        dataset_images: The training images.
        teacher: The teacher's module, for the objectives that need one.
        start: The module whose weights the training goes on from, where the recipe names one.
        folder: Where checkpoints, log and weights are kept.
        device: Where the networks run.
        progress: Called after every step.

    Raises:
        DivergedError: At a NaN or infinite loss, naming the step and the last good checkpoint.
    """
    student = Student(recipe, folder, start)
    return train_in_step(
        [student], dataset_images=dataset_images, teacher=teacher, device=device, progress=progress
    )[0]


@dataclass(frozen=True)
class Student:
    """One of several trainings in step: its recipe, folder, and the module it goes on from."""

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
    """Trains students of one teacher together: what their objectives share is made once a step.

    The weights are those of the trainings alone, to the bit. Each goes on from its own last
    checkpoint; those behind catch up first. One that diverges leaves the others to finish.

    Args:
        students: Of recipes that `recipe.require_alike` accepts.
        dataset_images: The training images.
        teacher: The teacher's module, for the objectives that need one.
        device: Where the networks run.
        progress: Called after every step of every student.

    Raises:
        DivergedError: At a NaN or infinite loss, naming the step and the last good checkpoint;
            after the others have finished.
    """
    shared = Shared()
    trainers = [
        _Trainer(s.recipe, dataset_images, teacher, s.start, s.folder, device, shared)
        for s in students
    ]
    for trainer in trainers:
        trainer.resume()
    _run(trainers, progress)
    return [trainer.finish() for trainer in trainers]


def _run(trainers: Sequence["_Trainer"], progress: Callable[[TrainState], None] | None) -> None:
    """Steps to the end; an interrupt is heeded between two steps, after a checkpoint."""
    start = time.monotonic()
    running = list(trainers)
    diverged: list[DivergedError] = []
    with _Interrupts() as interrupts:
        while running := [t for t in running if t.step < t.recipe.steps]:
            behind = min(t.step for t in running)
            for trainer in [t for t in running if t.step == behind]:
                try:
                    trainer.advance(progress, start)
                except DivergedError as error:
                    diverged.append(error)
                    running.remove(trainer)
            if interrupts.asked:
                for trainer in running:
                    trainer.save()
                raise Interrupted
    for trainer in trainers if diverged else ():
        if trainer.step == trainer.recipe.steps:
            trainer.finish()
    if diverged:
        raise diverged[0]


class _Trainer:
    def __init__(
        self,
        recipe: Recipe,
        images: ImageSet,
        teacher: nn.Module | None,
        start: nn.Module | None,
        folder: Path,
        device: torch.device,
        shared: Shared,
    ) -> None:
        self.recipe, self.images, self.folder, self.device = recipe, images, folder, device
        folder.mkdir(parents=True, exist_ok=True)
        self.ranks = Ranks(device)
        torch.manual_seed(_number("initial weights", recipe.seed))
        model: Model = create("model", recipe.model)
        objective = recipe.built_objective()
        student = model.build().train().requires_grad_(True)
        first = _first_weights(recipe, objective, teacher, start)
        if first is not None:
            _take(student, first, recipe)
        self.student = student.to(device).to(memory_format=torch.channels_last)
        distance = create("distance", recipe.distance).build(device) if recipe.distance else None
        setup = Setup(self.student, teacher, distance, recipe.steps, device, shared)
        self.loss: Loss = objective.build(setup).to(device)
        self.average = WeightAverage(self.student, recipe.ema, recipe.batch)
        self.parameters = [p for p in self.student.parameters() if p.requires_grad]
        self.optimiser = _optimiser(recipe, self.parameters)
        self.step, self.points = 0, list[TrainingPoint]()
        self.recent: list[float] = []
        self.identity = digest([recipe.identity(), images.fingerprint()])
        self.sampler: Sampler | None = create("sampler", model.sampler) if model.sampler else None
        self.forward: nn.Module = self.loss
        if recipe.compile:
            self.forward = torch.compile(self.loss)  # type: ignore[assignment]

    def resume(self) -> None:
        """Goes on from the last whole checkpoint, if there is one."""
        state = latest_checkpoint(self.folder, self.device)
        if state is None:
            return
        if state["identity"] != self.identity:
            raise UserError(
                f"{self.folder} holds another training: its recipe or its data differ",
                fix="give another folder, or delete that one",
            )
        self.recent = list(state["recent"])
        self.student.load_state_dict(state["student"])
        self.average.module.load_state_dict(state["average"])
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.points = [TrainingPoint.model_validate(p) for p in state["points"]]

    def advance(self, progress: Callable[[TrainState], None] | None, start: float) -> None:
        """One step, logged and kept; `start` is when the run began, in monotonic seconds."""
        loss = self._step()
        self.step += 1
        seen = self.step * self.recipe.batch
        extra = self.loss.progress(self.step - 1)
        self._log(loss, seen, extra)
        self._keep(seen)
        if progress is not None and self.ranks.is_first:
            spent = time.monotonic() - start
            progress(TrainState(self.recipe.recipe, self.step, seen, loss, spent, extra))

    def _log(self, loss: float, seen: int, extra: dict[str, float]) -> None:
        """The mean loss since the last point, kept in the checkpoint with the rest."""
        self.recent.append(loss)
        if self.step % self.recipe.log_every == 0 or self.step == self.recipe.steps:
            mean = float(np.mean(self.recent))
            self.recent.clear()
            point = TrainingPoint(step=self.step, images=seen, loss=mean, extra=extra)
            self.points.append(point)

    def finish(self) -> TrainResult:
        """Writes weights and log."""
        weights, log = self.folder / "weights.safetensors", self.folder / "log.json"
        if self.ranks.is_first:
            state = {k: v.cpu().contiguous() for k, v in self.average.module.state_dict().items()}
            write_bytes(weights, save(state))
            name = self.recipe.recipe
            record = TrainingLog(
                label=name,
                recipe=name,
                recipe_digest=digest(self.recipe.identity()),
                points=self.points,
            )
            write_json(log, record.model_dump(mode="json"))
        self.ranks.wait()
        return TrainResult(weights, log, self.step, self.step * self.recipe.batch)

    def _step(self) -> float:
        recipe = self.recipe
        if self.loss.restarts(self.step):
            self.optimiser.state.clear()
        self._set_rate()
        part = self.ranks.part(recipe.batch)
        draws = Draws(recipe.seed, self.step, recipe.batch, part, self.device)
        torch.manual_seed(draws.number + self.ranks.rank)
        images, labels = self._batch(draws)
        self.optimiser.zero_grad(set_to_none=True)
        narrow = recipe.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=narrow):
            losses = self.forward(images, labels, self.step, draws)
        total = losses.float().sum() / recipe.batch
        total.backward()
        value = self.ranks.sum_gradients(self.parameters, total.detach())
        self._check(value, self._clip())
        self.optimiser.step()
        self.loss.after_step(self.step)
        self.average.update(self.student, (self.step + 1) * recipe.batch)
        return value

    def _batch(self, draws: Draws) -> tuple[Tensor, Tensor | None]:
        chosen = draws.integers(len(self.images)).cpu().numpy()
        images = to_images(torch.from_numpy(self.images.pixels(chosen)).to(self.device))
        if self.recipe.flip:
            flipped = draws.uniform() < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        labels = self.images.labels() if getattr(self.student, "classes", 0) else None
        drawn = None if labels is None else torch.from_numpy(labels[chosen]).to(self.device)
        return images.contiguous(memory_format=torch.channels_last), drawn

    def _clip(self) -> float:
        limit = self.recipe.clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True))

    def _set_rate(self) -> None:
        spec, seen = self.recipe.optimiser, self.step * self.recipe.batch
        share = (
            min(1.0, (seen + self.recipe.batch) / spec.warmup_images) if spec.warmup_images else 1
        )
        if spec.decay_images:
            share *= min(1.0, max(0.0, (self.recipe.images - seen) / spec.decay_images))
        share *= self.loss.learning_rate_share(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = spec.lr * share

    def _check(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        kept = sorted(self.folder.glob("checkpoint-*.pt"))
        last = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
        raise DivergedError(
            f"training {self.recipe.recipe} diverged at step {self.step}: loss {loss}, gradient "
            f"norm {norm}; {last}\n  fix: a lower optimiser.lr, or a smaller clip"
        )

    def _keep(self, seen: int) -> None:
        recipe = self.recipe
        if seen // recipe.save_every_images > (seen - recipe.batch) // recipe.save_every_images:
            self.save()
        show = recipe.show_every_images
        if show and seen // show > (seen - recipe.batch) // show:
            self._show(seen)

    def save(self) -> None:
        """Writes a checkpoint."""
        if not self.ranks.is_first:
            return
        state: dict[str, Any] = {
            "identity": self.identity,
            "step": self.step,
            "recent": list(self.recent),
            "student": self.student.state_dict(),
            "average": self.average.module.state_dict(),
            "loss": self.loss.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "points": [p.model_dump() for p in self.points],
        }
        save_checkpoint(self.folder, self.step, state)

    def _show(self, seen: int) -> None:
        if self.sampler is None or not self.ranks.is_first:
            return
        generator = BoundGenerator(self.average.module, self.sampler)  # type: ignore[arg-type]
        noise = Noise(0, range(64), generator.shape, self.device)
        labels = noise.labels(generator.classes) if generator.classes else None
        pixels = to_pixels(generator.generate(noise, labels), "round").cpu()
        with atomic_file(self.folder / f"samples-{seen:09d}.png") as file:
            Image.fromarray(image_grid(pixels, 8).numpy()).save(file, format="PNG")


class _Interrupts:
    """Holds back SIGINT while a step runs: a step half done must not be saved as a checkpoint."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True


def _first_weights(
    recipe: Recipe, objective: Objective, teacher: nn.Module | None, start: nn.Module | None
) -> dict[str, Any] | None:
    if recipe.start is not None:
        if start is None:
            raise UserError(
                f"recipe {recipe.recipe} goes on from {recipe.start}, whose weights are missing",
                fix="--start WEIGHTS.safetensors, or the folder it was trained in",
            )
        return start.state_dict()
    if teacher is not None:
        return objective.initial_state(teacher)
    if objective.starts_from_teacher():
        raise UserError(
            f"recipe {recipe.recipe} starts from a teacher's weights, and none was given",
            fix="teacher: family/card, or --teacher PATH",
        )
    return None


def _take(student: nn.Module, state: dict[str, Any], recipe: Recipe) -> None:
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"recipe {recipe.recipe} can't start from the weights of "
            f"{recipe.start or recipe.teacher}: {str(error).splitlines()[-1].strip()}",
            expected="the same network in both recipes",
        ) from None


def _optimiser(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    spec = recipe.optimiser
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "radam": torch.optim.RAdam,
        "muon": Muon,
    }
    return kinds[spec.name](
        parameters,
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        foreach=True,
    )


def _number(*what: Any) -> int:
    return int(digest(list(what))[:15], 16)
