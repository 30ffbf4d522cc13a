"""Progressive distillation (Salimans and Ho 2022, https://arxiv.org/abs/2202.00512), trained here.

It is in sigma-space, as in the comparison of the consistency-models paper. There is one card per
number of steps, each distilled from the card with twice as many.
"""

from typing import Any, ClassVar

from torch import nn

from cmbench.api import Classes, EDMDenoiser, ImageShape, Model, create

__all__ = ["Progressive"]


class Progressive(Model):
    """EDM's denoiser, evaluated only at the levels of its few steps; no boundary condition."""

    sampler: ClassVar[dict[str, Any] | None] = {
        "name": "openai_karras",
        "method": "progdist",
        "steps": 1,
    }

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
