"""Base class of cold diffusion's samplers: their severities, their start, and the model check."""

from abc import abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.core.bounds import Steps
from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.cold import Restorer
from cmbench.samplers.base import Sampler

__all__ = ["ColdSampler"]

SYMMETRY_DRAW = 1
"""Index of the noise draw that breaks the symmetry of a constant start."""


class ColdSampler(Sampler):
    """Restores from severity `levels` down to 0 in `steps` strides; None visits every severity."""

    accepts: ClassVar[str] = "restorer"

    steps: Steps | None = Field(default=None, description="strides; none: every severity")
    noise_level: float = Field(
        default=0.0,
        ge=0,
        description="deviation of noise added to break the start's symmetry (0.002)",
    )
    off_by_one: bool = Field(
        default=False,
        description="degrade by one severity less, as in the released snow and desaturation code",
    )

    def nfe(self) -> int | None:
        """One evaluation per stride; None if the model's number of severities decides."""
        return self.steps

    def sample(self, denoiser: nn.Module, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) clipped to [-1, 1], restored from the restorer's start.

        Raises:
            UserError: If the model is not a restorer, or has fewer severities than `steps`.
        """
        restorer = self._restorer(denoiser)
        x = restorer.start(noise)
        if self.noise_level:
            x = x + self.noise_level * noise.normal(SYMMETRY_DRAW)
        return self.restore(restorer, x, noise, labels).clamp(-1, 1)

    def restore(
        self,
        restorer: Restorer,
        x: Tensor,
        noise: Noise | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Restores x (B, C, H, W) from the greatest severity, without clipping.

        `noise` must be the noise that the degradation was drawn from.
        """
        visited = self._severities(restorer.levels)
        for now, lower in pairwise(visited):
            level, below = (torch.full((len(x),), s, device=x.device) for s in (now, lower))
            x0 = restorer(x, level, labels)
            if self.off_by_one:
                level, below = (level - 1).clamp(min=0), (below - 1).clamp(min=0)
            x = self._step(restorer, x, x0, level, below, noise)
        return x

    @abstractmethod
    def _step(
        self,
        restorer: Restorer,
        x: Tensor,
        x0: Tensor,
        level: Tensor,
        below: Tensor,
        noise: Noise | None,
    ) -> Tensor:
        """Returns the state at severity `below` from x at `level` and its restoration x0."""

    def _severities(self, levels: int) -> list[int]:
        steps = levels if self.steps is None else self.steps
        if steps > levels:
            raise UserError(
                f"sampler '{self.name}': {steps} steps, but the model has {levels} severities",
                expected=f"steps of 1 to {levels}",
            )
        return [round(levels * (steps - i) / steps) for i in range(steps + 1)]

    def _restorer(self, module: nn.Module) -> Restorer:
        if isinstance(module, Restorer):
            return module
        raise UserError(
            f"sampler '{self.name}' samples cold diffusion's restorers, not a "
            f"{type(module).__name__}",
            fix="name a sampler for this kind of model",
        )
