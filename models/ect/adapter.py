"""Easy consistency tuning (Geng et al. 2024, https://arxiv.org/abs/2406.14548)."""

from typing import Any, ClassVar

from torch import Tensor, nn

from cmbench.api import Classes, ConsistencyFunction, EDMDenoiser, ImageShape, Model, create

__all__ = ["ECT"]


class ECT(Model):
    """A diffusion model tuned to a consistency model, with the authors' sigma_min of 0.003."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "multistep"}

    network: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    sigma_data: float = 0.5
    sigma_min: float = 0.003
    sigma_max: float = 80.0

    def build(self) -> nn.Module:
        """Builds a ConsistencyFunction."""
        return _Tuned(
            create("network", self.network).build(self.shape, self.classes),
            self.shape,
            classes=self.classes,
            sigma_data=self.sigma_data,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        ).eval()


class _Tuned(ConsistencyFunction):
    """EDM's scalings in training, else the boundary condition, as in the authors' code."""

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Returns c_skip and c_out at sigma."""
        return EDMDenoiser.scalings(self, sigma) if self.training else super().scalings(sigma)
