"""Random draws of a training step, a function of (seed, step) and the position in the batch.

A resumed training run therefore has the draws of an uninterrupted one, and several processes
that share a global batch have the draws of a single process.
"""

import torch
from torch import Tensor

from cmbench.core.digests import digest

__all__ = ["Draws"]


class Draws:
    """Draws of one step for this process's part of the global batch.

    Args:
        seed: The recipe's seed.
        step: The optimiser's step.
        total: Number of images of the global batch.
        part: First and last position (exclusive) of this process's images in the batch.
        device: Device that the draws are moved to; they are drawn on the CPU.
    """

    def __init__(
        self, seed: int, step: int, total: int, part: tuple[int, int], device: torch.device
    ) -> None:
        self.total, self.part, self.device = total, part, device
        number = int(digest(["training step", seed, step])[:15], 16)
        self.generator = torch.Generator().manual_seed(number)
        self.number = number

    def normal(self, *shape: int) -> Tensor:
        """Standard normal draws (B, *shape), float32."""
        return self._mine(torch.randn(self.total, *shape, generator=self.generator))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform draws in [0, 1), (B, *shape), float32."""
        return self._mine(torch.rand(self.total, *shape, generator=self.generator))

    def integers(self, high: int) -> Tensor:
        """Uniform integers in [0, high), (B,), int64."""
        return self._mine(torch.randint(high, (self.total,), generator=self.generator))

    def _mine(self, values: Tensor) -> Tensor:
        return values[self.part[0] : self.part[1]].to(self.device)
