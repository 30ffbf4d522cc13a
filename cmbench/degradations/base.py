"""The contract of a degradation D(x0, s) of cold diffusion, deterministic given its noise."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from cmbench.core.component import Component
from cmbench.core.random import Noise

__all__ = ["Degradation"]


class Degradation(Component, ABC):
    """Degrades images (B, C, H, W) in [-1, 1] to severity s in 0..levels; D(x, 0) = x
    (Cold Diffusion, https://arxiv.org/abs/2208.09392, section 3.1).
    """

    kind: ClassVar[str] = "degradation"
    levels: int

    @abstractmethod
    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Degrades x0 to `severity` (B,) int64 in 0..levels; `noise` draws random masks."""

    @abstractmethod
    def start(self, noise: Noise) -> Tensor:
        """Returns fully degraded images (B, C, H, W), the start of generation."""
