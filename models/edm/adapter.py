"""EDM (Karras et al. 2022, https://arxiv.org/abs/2206.00364): denoisers trained by cmbench."""

from typing import Any, ClassVar

from torch import nn

from cmbench.api import Classes, EDMDenoiser, ImageShape, Model, create

__all__ = ["EDM"]


class EDM(Model):
    """A raw network with EDM's preconditioning; the usual teacher."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "heun"}

    network: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def build(self) -> nn.Module:
        """Builds an EDMDenoiser."""
        net = create("network", self.network).build(self.shape, self.classes)
        return EDMDenoiser(
            net,
            self.shape,
            classes=self.classes,
            sigma_data=self.sigma_data,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )
