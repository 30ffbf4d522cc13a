"""The engine's view of a model: a generator of images from seeded noise."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from cmbench.core.random import Noise

__all__ = ["Generator"]


@runtime_checkable
class Generator(Protocol):
    """Makes images from noise. A Denoiser bound to a Sampler is one; a GAN is another."""

    shape: tuple[int, int, int]
    classes: int

    def networks(self) -> Sequence[nn.Module]:
        """The modules whose forward calls are counted as network evaluations."""
        ...

    def generate(self, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1], one for each index of `noise`."""
        ...
