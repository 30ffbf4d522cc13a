r"""EDM's objective: weighted denoising at ln sigma ~ N(p_mean, p_std^2).

EDM (https://arxiv.org/abs/2206.00364, section 5 and Table 1): the weight is
(s^2 + sd^2) / (s sd)^2, so that the network's target has unit weight at every level.
"""

from pydantic import Field
from torch import Tensor

from cmbench.denoise.base import expand
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["EDM"]


class EDM(Objective):
    """The mean over pixels of weight * (D(x + s z; s) - x)^2."""

    p_mean: float = Field(default=-1.2, description="mean of ln sigma")
    p_std: float = Field(default=1.2, gt=0, description="standard deviation of ln sigma")
    sigma_data: float = Field(default=0.5, gt=0)

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student."""
        return _Denoising(self, setup)


class _Denoising(Loss):
    def __init__(self, spec: EDM, setup: Setup) -> None:
        super().__init__()
        self.spec, self.student = spec, setup.student

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        sigma = (self.spec.p_mean + self.spec.p_std * draws.normal()).exp()
        level = expand(sigma, images)
        noisy = images + level * draws.normal(*images.shape[1:])
        sd = self.spec.sigma_data
        weight = (sigma**2 + sd**2) / (sigma * sd) ** 2
        error = (self.student(noisy, sigma, labels) - images).square().flatten(1).mean(1)
        return weight * error
