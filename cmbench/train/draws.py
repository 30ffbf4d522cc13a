"""Random draws of a training step: a function of (seed, step) and the image's place in the batch.

So a resumed training draws what an undisturbed one would, and several processes that share a
global batch draw what one process would.
"""

import torch
from torch import Tensor

from cmbench.core.digests import digest

__all__ = ["Draws"]


class Draws:
    """The draws of one step for this process's part of the global batch.

    Args:
        seed: The recipe's seed.
        step: Step of the optimiser.
        total: Images of the global batch.
        part: First and last place (exclusive) of this process's images in it.
        device: Where draws are moved; they are made on the CPU.
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
        """Whole numbers in [0, high), (B,), int64."""
        return self._mine(torch.randint(high, (self.total,), generator=self.generator))

    def _mine(self, drawn: Tensor) -> Tensor:
        return drawn[self.part[0] : self.part[1]].to(self.device)
