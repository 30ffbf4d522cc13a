"""The training of one recipe, step by step: its networks and their optimiser."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from cmbench.core.digests import digest
from cmbench.core.errors import CmbenchError, UserError
from cmbench.core.files import atomic_file, sweep, write_bytes, write_json
from cmbench.core.images import image_grid, to_images
from cmbench.core.loader import create
from cmbench.datasets.base import ImageSet
from cmbench.denoise.model import Model
from cmbench.record.schema import TrainingLog, TrainingPoint
from cmbench.samplers.base import BoundGenerator, Sampler
from cmbench.train.checkpoint import latest_checkpoint, save_checkpoint
from cmbench.train.draws import Draws
from cmbench.train.ema import WeightAverage
from cmbench.train.initial_weights import initial_weights, take_weights
from cmbench.train.objectives.base import Loss, Setup, Shared
from cmbench.train.optimisers import build_optimiser, learning_rate
from cmbench.train.parallel import Ranks
from cmbench.train.recipe import Recipe
from cmbench.train.suitability import require_suitable

__all__ = ["DivergedError", "TrainResult", "TrainState", "Trainer"]


class DivergedError(CmbenchError):
    """Raised if a loss or gradient is NaN or infinite; the last checkpoint remains."""


@dataclass(frozen=True)
class TrainState:
    """Progress of a recipe's training."""

    recipe: str
    step: int
    images: int
    loss: float
    seconds: float
    extra: dict[str, float]


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run: EMA weights (safetensors), log, and cost."""

    weights: Path
    log: Path
    steps: int
    images: int


class Trainer:
    """The training of one recipe: networks, optimiser and current step."""

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
        if self.ranks.is_first:
            sweep(folder)
        torch.manual_seed(_number("initial weights", recipe.seed))
        model: Model = create("model", recipe.model)
        objective = recipe.built_objective()
        student = model.build().train().requires_grad_(True)
        require_suitable(recipe, student, images, teacher)
        first = initial_weights(recipe, objective, teacher, start)
        if first is not None:
            take_weights(student, first, recipe)
        self.student = student.to(device).to(memory_format=torch.channels_last)
        distance = create("distance", recipe.distance).build(device) if recipe.distance else None
        setup = Setup(self.student, teacher, distance, recipe.steps, device, shared)
        self.loss: Loss = objective.build(setup).to(device)
        self.average = WeightAverage(self.student, recipe.ema, recipe.batch)
        self.parameters = [p for p in self.student.parameters() if p.requires_grad]
        self.optimiser = build_optimiser(recipe.optimiser, self.parameters)
        self.step, self.points = 0, list[TrainingPoint]()
        self.recent: list[float] = []
        self.identity = digest([recipe.identity(), images.fingerprint()])
        self.sampler: Sampler | None = create("sampler", model.sampler) if model.sampler else None
        self.forward: nn.Module = self.loss
        if recipe.compile:
            self.forward = torch.compile(self.loss)  # type: ignore[assignment]

    def resume(self) -> None:
        """Resumes from the last intact checkpoint, if there is one."""
        state = latest_checkpoint(self.folder, self.device)
        if state is None:
            return
        if state["identity"] != self.identity:
            raise UserError(
                f"{self.folder} holds another training run: its recipe or its data differ",
                fix="choose another folder, or delete this one",
            )
        self.recent = list(state["recent"])
        self.student.load_state_dict(state["student"])
        self.average.module.load_state_dict(state["average"])
        self.loss.load_state_dict(state["loss"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        self.points = [TrainingPoint.model_validate(p) for p in state["points"]]

    def advance(self) -> float:
        """Takes one step, logs it, writes checkpoint and samples when due; returns the loss."""
        loss = self._step()
        self.step += 1
        seen = self.step * self.recipe.batch
        self._log(loss, seen, self.loss.progress(self.step - 1))
        self._keep(seen)
        return loss

    def state(self, loss: float, seconds: float) -> TrainState:
        """Returns the progress after the last step, whose loss was `loss`."""
        extra = self.loss.progress(self.step - 1)
        seen = self.step * self.recipe.batch
        return TrainState(self.recipe.recipe, self.step, seen, loss, seconds, extra)

    def _log(self, loss: float, seen: int, extra: dict[str, float]) -> None:
        """Logs the mean loss since the last entry; the log is part of the checkpoint."""
        self.recent.append(loss)
        if self.step % self.recipe.log_every == 0 or self.step == self.recipe.steps:
            mean = float(np.mean(self.recent))
            self.recent.clear()
            point = TrainingPoint(step=self.step, images=seen, loss=mean, extra=extra)
            self.points.append(point)

    def finish(self) -> TrainResult:
        """Writes weights and log, and returns the result."""
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
        share = self.loss.learning_rate_share(self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(recipe, self.step, share)
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
        index = draws.integers(len(self.images)).cpu().numpy()
        images = to_images(torch.from_numpy(self.images.pixels(index)).to(self.device))
        if self.recipe.flip:
            flipped = draws.uniform() < 0.5
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        labels = self.images.labels() if getattr(self.student, "classes", 0) else None
        batch = None if labels is None else torch.from_numpy(labels[index]).to(self.device)
        return images.contiguous(memory_format=torch.channels_last), batch

    def _clip(self) -> float:
        limit = self.recipe.clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True))

    def _check(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        files = sorted(self.folder.glob("checkpoint-*.pt"))
        last = (
            f"the last good checkpoint is {files[-1]}" if files else "no checkpoint was saved yet"
        )
        raise DivergedError(
            f"training {self.recipe.recipe} diverged at step {self.step}: loss {loss}, gradient "
            f"norm {norm}; {last}\n  fix: lower optimiser.lr or clip"
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
        pixels = generator.pixels(0, range(64), self.device)
        with atomic_file(self.folder / f"samples-{seen:09d}.png") as file:
            Image.fromarray(image_grid(pixels, 8).numpy()).save(file, format="PNG")


def _number(*what: Any) -> int:
    return int(digest(list(what))[:15], 16)
