r"""DDPM's simple objective: the squared error of the noise at uniform steps.

DDPM (https://arxiv.org/abs/2006.11239, eq. 14). The noise is computed from the denoiser, eps =
(x - D) / sigma, so that a network that predicts x0 or v is trained by the same loss.
"""

from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["DDPM"]


class DDPM(Objective):
    """L_simple, the mean over pixels of (eps(x_t, t) - eps)^2."""

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student is not of a discrete process.
        """
        if not isinstance(setup.student, DiscreteVPDenoiser):
            raise UserError(
                f"objective ddpm can't train a {type(setup.student).__name__}",
                expected="a model of a discrete VP process, such as ddpm/...",
            )
        return _Simple(setup.student)


class _Simple(Loss):
    def __init__(self, student: DiscreteVPDenoiser) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        t = draws.integers(len(self.student.levels))
        return self.terms(images, t, draws.normal(*images.shape[1:]), labels)

    def terms(self, images: Tensor, t: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the loss (B,) at steps t (B,) with `noise` (B, C, H, W)."""
        sigma = self.student.levels[t.cpu()].to(images)
        level = expand(sigma, images)
        x = images + level * noise
        predicted = (x - self.student(x, sigma, labels)) / level
        return (predicted - noise).square().flatten(1).mean(1)
