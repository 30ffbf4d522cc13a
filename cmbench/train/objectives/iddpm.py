"""Improved DDPM's hybrid objective: squared error of the noise and one term of the bound.

iDDPM (https://arxiv.org/abs/2102.09672), eq. 16: L_simple + 0.001 L_vlb. One step per sample
estimates the sum over all T, so that its term in bits is weighted by T / 1000. The term has a
stop-gradient on the mean and trains only the variance. A network without learned variance has
only L_simple.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand
from cmbench.denoise.bits_per_dim import kl_bits, pixel_bits
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser
from cmbench.samplers._respacing import Posterior, Process
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["IDDPM"]


class IDDPM(Objective):
    """The hybrid loss L_simple + 0.001 L_vlb at uniform steps, averaged over pixels."""

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student is not of a discrete process.
        """
        if not isinstance(setup.student, DiscreteVPDenoiser):
            raise UserError(
                f"objective iddpm can't train a {type(setup.student).__name__}",
                expected="a model of a discrete VP process, such as iddpm/...",
            )
        return _Hybrid(setup.student)


class _Terms(NamedTuple):
    """Squared error and weighted term of the bound, each (B,)."""

    mse: Tensor
    vb: Tensor | None


class _Hybrid(Loss):
    def __init__(self, student: DiscreteVPDenoiser) -> None:
        super().__init__()
        self.student, self.process = student, Process.of(student.abar)

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        t = draws.integers(len(self.process.abar))
        terms = self.terms(images, t, draws.normal(*images.shape[1:]), labels)
        return terms.mse if terms.vb is None else terms.mse + terms.vb

    def terms(self, images: Tensor, t: Tensor, noise: Tensor, labels: Tensor | None) -> _Terms:
        """Computes the terms at steps t (B,) with `noise` (B, C, H, W)."""
        index = t.cpu()
        wide = images.double()
        abar = expand(self.process.abar[index].to(wide), wide)
        x = abar.sqrt() * wide + (1 - abar).sqrt() * noise.double()
        clean, learned = self.process.denoised(self.student, x, index, labels)
        target = images if self.student.predicts_x0 else noise
        # The network's noise is computed from its D, exactly up to rounding in float64.
        predicted = (
            clean if self.student.predicts_x0 else (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        )
        mse = (target.double() - predicted).square().flatten(1).mean(1)
        if learned is None:
            return _Terms(mse, None)
        mean = self.process.mean(clean.detach(), x, index)
        spread = self.process.learned(learned, x, index)
        term = self._term(wide, x, index, Posterior(mean, spread, clean))
        return _Terms(mse, term * len(self.process.abar) / 1000)

    def _term(self, images: Tensor, x: Tensor, t: Tensor, model: Posterior) -> Tensor:
        """KL between posteriors, or at step 0 the pixels' negative log-likelihood, in bits."""
        mean = self.process.mean(images, x, t)
        spread = expand(self.process.log_variance("small")[t].to(x), x)
        kl = kl_bits(mean, spread, model.mean, model.log_variance)
        likelihood_bits = pixel_bits(images, model.mean, model.log_variance / 2)
        last = expand(t.to(x.device) == 0, x)
        return torch.where(last, likelihood_bits, kl).flatten(1).mean(1)
