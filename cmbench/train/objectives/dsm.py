r"""Denoising score matching on a ladder of noise levels, the objective of NCSN and NCSNv2.

NCSN (https://arxiv.org/abs/1907.05600, eq. 5-6) with weight sigma^2:
1/2 sigma^2 |score(x + sigma z) + z / sigma|^2 = 1/2 |D(x + sigma z; sigma) - x|^2 / sigma^2,
summed over pixels, at a uniformly drawn level. The loss is the same in all units.
"""

from pydantic import Field
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand
from cmbench.denoise.ncsn import NCSNDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["DSM"]


class DSM(Objective):
    """Denoising score matching, summed over pixels; the authors' weight has `power` 2."""

    power: float = Field(default=2.0, description="weight sigma^power (anneal_power)")

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student has no ladder of noise levels.
        """
        if not isinstance(setup.student, NCSNDenoiser):
            raise UserError(
                f"objective dsm can't train a {type(setup.student).__name__}",
                expected="a model with a ladder of noise levels, such as ncsn/...",
            )
        return _ScoreMatching(self, setup.student)


class _ScoreMatching(Loss):
    def __init__(self, spec: DSM, student: NCSNDenoiser) -> None:
        super().__init__()
        self.spec, self.student = spec, student

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        index = draws.integers(len(self.student.levels))
        return self.at(images, index, draws.normal(*images.shape[1:]), labels)

    def at(self, images: Tensor, index: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the loss (B,) at levels `index` (B,) with `noise` (B, C, H, W)."""
        sigma = self.student.levels.to(images.device)[index].to(images.dtype)
        level = expand(sigma, images)
        noisy = images + level * noise
        error = (self.student(noisy, sigma, labels) - images) / level
        half = error.square().flatten(1).sum(1) / 2
        # Powers of the weight beyond 2 refer to the authors' units.
        return half * (sigma / self.student.unit) ** (self.spec.power - 2)
