"""Improved DDPM (Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672), trained by cmbench.

It has a cosine schedule and a network that predicts the noise and the variance, interpolated
between beta~ and beta. OpenAI's released networks are the family `iddpm_official`.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from cmbench.api import (
    Classes,
    DiscreteVPDenoiser,
    ImageShape,
    Model,
    create,
    noise_schedule,
)

__all__ = ["IDDPM"]


class IDDPM(Model):
    """Improved DDPM on any network with a field `outputs`, set to twice the image's channels."""

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser", "discrete"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "iddpm_ancestral"}

    network: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    steps: int = Field(default=4000, ge=2, le=100_000, description="T, number of diffusion steps")
    noise_schedule: Literal["linear", "cosine"] = "cosine"
    learn_sigma: bool = True
    time_scale: float | None = Field(
        default=None,
        gt=0,
        description="ratio of the network's time to the step; none: 1000 / steps",
    )
    sigma_min: float | None = Field(
        default=None, gt=0, description="none: the process's least level"
    )
    sigma_max: float | None = Field(
        default=None, gt=0, description="none: the process's, at most 80"
    )

    def build(self) -> nn.Module:
        """Builds a DiscreteVPDenoiser over the raw network, `net`."""
        wide = {**self.network, "outputs": self.shape[0] * (2 if self.learn_sigma else 1)}
        return DiscreteVPDenoiser(
            create("network", wide).build(self.shape, self.classes),
            self.shape,
            noise_schedule(self.noise_schedule, self.steps),
            classes=self.classes,
            time_scale=self.time_scale or 1000 / self.steps,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        ).eval()
