r"""Sohl-Dickstein's bound for Gaussian diffusion at one time per image, in bits per value.

The loss is -(K - L_null) / values, with the sum over t = 2..T estimated from a single t (2015,
https://arxiv.org/abs/1503.03585, eq. 14; relative to an isotropic Gaussian, as in the released
code). As x_t is a function of fixed noise, trained betas have a gradient too.
"""

import math

from pydantic import Field
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.sohl_dickstein import ReverseGaussian
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["SohlDickstein"]


class SohlDickstein(Objective):
    """(T - 1) KL at a uniform t, the entropies and the null model, in bits per value."""

    dequantise: float = Field(
        default=2 / 255, ge=0, description="width of the uniform noise added to images in [-1, 1]"
    )

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student has no learned reverse kernels.
        """
        if not isinstance(setup.student, ReverseGaussian):
            raise UserError(
                f"objective 'sohl_dickstein' does not train a {type(setup.student).__name__}",
                fix="model: {name: sohl_dickstein, kernel: gaussian, ...}",
            )
        return _Bound(self, setup.student)


class _Bound(Loss):
    def __init__(self, spec: SohlDickstein, student: ReverseGaussian) -> None:
        super().__init__()
        self.spec, self.student = spec, student

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        student, shape = self.student, images.shape[1:]
        smooth = images + self.spec.dequantise * (draws.uniform(*shape) - 0.5)
        x0 = student.standardise(smooth)
        index = 2 + draws.integers(student.levels - 1)
        divergence = student.divergence(x0, index, draws.normal(*shape), labels)
        above = (student.levels - 1) * divergence / shape.numel()
        return (above - student.entropies() + student.null()) / math.log(2)
