r"""The bound of binomial diffusion at one time per sequence, in bits per sequence.

The loss is -K, with the sum over t = 2..T estimated from a single t (Sohl-Dickstein et al. 2015,
https://arxiv.org/abs/1503.03585, eq. 14).
"""

import math

import torch
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.binomial import BinomialDiffusion
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["Binomial"]


class Binomial(Objective):
    """The loss (T - 1) KL at a uniform t plus the entropies; images are thresholded at 0."""

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student is not a binomial diffusion.
        """
        if not isinstance(setup.student, BinomialDiffusion):
            raise UserError(
                f"objective 'binomial' does not train a {type(setup.student).__name__}",
                fix="model: {name: sohl_dickstein, kernel: binomial, ...}",
            )
        return _Bound(setup.student)


class _Bound(Loss):
    def __init__(self, student: BinomialDiffusion) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        student, shape = self.student, images.shape[1:]
        bits = torch.where(images > 0, 1.0, -1.0)
        index = 2 + draws.integers(student.levels - 1)
        divergence = student.divergence(bits, index, draws.uniform(*shape), labels)
        above = (student.levels - 1) * divergence
        return (above - shape.numel() * student.entropies()) / math.log(2)
