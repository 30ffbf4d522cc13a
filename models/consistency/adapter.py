"""Consistency models (Song et al. 2023, https://arxiv.org/abs/2303.01469) trained by cmbench."""

from typing import Any, ClassVar

from torch import nn

from cmbench.api import Classes, ConsistencyFunction, ImageShape, Model, create

__all__ = ["Consistency"]


class Consistency(Model):
    """A raw network with the boundary condition f(x, sigma_min) = x, for CD and CT."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "multistep"}

    network: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def build(self) -> nn.Module:
        """Builds a ConsistencyFunction."""
        net = create("network", self.network).build(self.shape, self.classes)
        return ConsistencyFunction(
            net,
            self.shape,
            classes=self.classes,
            sigma_data=self.sigma_data,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )
