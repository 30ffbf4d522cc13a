"""Rectified flow / flow matching (arXiv 2209.03003 and 2210.02747), trained by cmbench."""

from typing import Any, ClassVar

from torch import nn

from cmbench.api import Classes, FlowDenoiser, ImageShape, Model, create

__all__ = ["Flow"]


class Flow(Model):
    """A network that predicts velocities; as a denoiser it works with every sampler."""

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser", "flow"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "flow_euler"}

    network: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    time_scale: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def build(self) -> nn.Module:
        """Builds a FlowDenoiser."""
        net = create("network", self.network).build(self.shape, self.classes)
        return FlowDenoiser(
            net,
            self.shape,
            classes=self.classes,
            time_scale=self.time_scale,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )
