"""MeanFlow (Geng et al. 2025, https://arxiv.org/abs/2505.13447), trained by cmbench."""

from typing import Any, ClassVar

from torch import nn

from cmbench.api import Classes, ImageShape, JumpDenoiser, Model, create

__all__ = ["MeanFlow"]


class MeanFlow(Model):
    """A network that predicts mean velocities, designed for one step."""

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser", "flow", "jump"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "flow_jump"}

    network: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    time_scale: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def build(self) -> nn.Module:
        """Builds a JumpDenoiser, whose network has two noise inputs (`times: 2`)."""
        net = create("network", self.network).build(self.shape, self.classes)
        return JumpDenoiser(
            net,
            self.shape,
            classes=self.classes,
            time_scale=self.time_scale,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )
