"""What cold diffusion's samplers share: the severities they visit, the start, the check."""

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
"""The draw of the noise that breaks the symmetry of a constant start."""


class ColdSampler(Sampler):
    """Walks severities levels..0 in `steps` strides (every one when none is named)."""

    accepts: ClassVar[str] = "restorer"

    steps: Steps | None = Field(default=None, description="strides; all severities if none")
    noise_level: float = Field(
        default=0.0, ge=0, description="noise added to the start: breaks its symmetry (0.002)"
    )
    off_by_one: bool = Field(
        default=False,
        description="degrade one severity less, as the released snow and desaturation code does",
    )

    def nfe(self) -> int | None:
        """The strides; with all severities, the model knows how many."""
        return self.steps

    def sample(self, denoiser: nn.Module, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) clipped to [-1, 1], from the restorer's start.

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
        """Restores x (B, C, H, W) at the greatest severity; not clipped. `noise` must be what the
        degradation was drawn from.
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
        """From x at `level` and its restoration x0 to severity `below`."""

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
            fix="name a sampler of the model's own kind",
        )
