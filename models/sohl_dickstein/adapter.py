"""Sohl-Dickstein et al. 2015 (https://arxiv.org/abs/1503.03585), the first diffusion models."""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from cmbench.api import (
    BinomialDiffusion,
    Classes,
    ImageShape,
    Model,
    ReverseGaussian,
    create,
)

__all__ = ["SohlDickstein"]


class SohlDickstein(Model):
    """Gaussian kernels with learned means and variances, or binomial ones for bits.

    The binomial model's sampler is `binomial`, which its cards name.
    """

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser", "reverse_gaussian", "bits"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "sohl_dickstein"}

    network: dict[str, Any]
    shape: ImageShape
    kernel: Literal["gaussian", "binomial"] = "gaussian"
    levels: int = Field(default=1000, ge=2, le=100_000, description="T")
    classes: Classes = 0
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    learn_beta: bool = False
    first_beta: float | None = Field(default=None, gt=0, lt=1, description="none: 1 / levels")
    predicts: Literal["rate", "x0"] = "x0"

    def build(self) -> nn.Module:
        """Builds a ReverseGaussian or a BinomialDiffusion."""
        if self.kernel == "binomial":
            net = create("network", self.network).build(self.shape)
            return BinomialDiffusion(net, self.shape, levels=self.levels, predicts=self.predicts)
        wide = {**self.network, "outputs": 2 * self.shape[0]}
        return ReverseGaussian(
            create("network", wide).build(self.shape, self.classes),
            self.shape,
            levels=self.levels,
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            learn_beta=self.learn_beta,
            first_beta=self.first_beta,
        )
