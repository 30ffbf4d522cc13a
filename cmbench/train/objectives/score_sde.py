r"""Denoising score matching in continuous time, for VE, VP and sub-VP processes.

Score SDE (https://arxiv.org/abs/2011.13456, eq. 7): |std score(y, t) + z|^2 at t uniform from
`least_t` to 1, which is |D - x|^2 / sigma^2 in sigma-space. The likelihood weighting (Song et al.
2021, https://arxiv.org/abs/2101.09258) multiplies it by g(t)^2 / std^2.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand
from cmbench.denoise.sde_denoiser import SDEDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["ScoreSDE"]


class ScoreSDE(Objective):
    """Score matching; the authors use `reduce: mean` for VP and sub-VP, `half_sum` for VE."""

    reduce: Literal["mean", "half_sum"] = "mean"
    likelihood_weighting: bool = False
    least_t: float = Field(default=1e-5, gt=0, lt=1, description="least time that is drawn")

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student has no process in continuous time.
        """
        if not isinstance(setup.student, SDEDenoiser):
            raise UserError(
                f"objective score_sde can't train a {type(setup.student).__name__}",
                expected="a model of a VE, VP or sub-VP process, such as score_sde/...",
            )
        return _ScoreMatching(self, setup.student)


class _ScoreMatching(Loss):
    def __init__(self, spec: ScoreSDE, student: SDEDenoiser) -> None:
        super().__init__()
        self.spec, self.student = spec, student

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        t = self.spec.least_t + (1 - self.spec.least_t) * draws.uniform().double()
        return self.at(images, t, draws.normal(*images.shape[1:]), labels)

    def at(self, images: Tensor, t: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the loss (B,) at times t (B,) with `noise` (B, C, H, W)."""
        sde = self.student.sde
        sigma = self.student.unit * sde.sigma(t)
        level = expand(sigma.to(images.dtype), images)
        noisy = images + level * noise
        error = ((self.student(noisy, sigma, labels) - images) / level).square().flatten(1)
        mean = self.spec.reduce == "mean"
        losses = error.mean(1) if mean else error.sum(1) / 2
        if self.spec.likelihood_weighting:
            losses = losses * (sde.diffusion(t) / sde.std(t)).square()
        return losses.to(images.dtype)
