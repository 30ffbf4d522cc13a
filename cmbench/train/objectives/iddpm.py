"""Improved DDPM's hybrid objective: the noise's squared error and one term of the bound.

iDDPM (https://arxiv.org/abs/2102.09672), eq. 16: L_simple + 0.001 L_vlb. One step a sample stands
for all T, so that its term in bits is weighed by T / 1000; the mean is held fixed in it, so that
it trains the variance alone. A network without learned variance has L_simple alone.
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
    """Uniform steps; mean over pixels."""

    def build(self, setup: Setup) -> Loss:
        """The loss on the student.

        Raises:
            UserError: If the student is not of a discrete process.
        """
        if not isinstance(setup.student, DiscreteVPDenoiser):
            raise UserError(
                f"objective iddpm can't train a {type(setup.student).__name__}",
                expected="a model of a discrete VP process, as iddpm/...",
            )
        return _Hybrid(setup.student)


class _Terms(NamedTuple):
    """Squared error and weighed term of the bound, (B,) each."""

    mse: Tensor
    vb: Tensor | None


class _Hybrid(Loss):
    def __init__(self, student: DiscreteVPDenoiser) -> None:
        super().__init__()
        self.student, self.process = student, Process.of(student.abar)

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        t = draws.integers(len(self.process.abar))
        found = self.terms(images, t, draws.normal(*images.shape[1:]), labels)
        return found.mse if found.vb is None else found.mse + found.vb

    def terms(self, images: Tensor, t: Tensor, noise: Tensor, labels: Tensor | None) -> _Terms:
        """The terms at steps t (B,) with `noise` (B, C, H, W)."""
        place = t.cpu()
        wide = images.double()
        abar = expand(self.process.abar[place].to(wide), wide)
        x = abar.sqrt() * wide + (1 - abar).sqrt() * noise.double()
        clean, learned = self.process.denoised(self.student, x, place, labels)
        target = images if self.student.predicts_x0 else noise
        # The network's noise is read off its D: exact up to rounding in float64.
        told = clean if self.student.predicts_x0 else (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        mse = (target.double() - told).square().flatten(1).mean(1)
        if learned is None:
            return _Terms(mse, None)
        mean = self.process.mean(clean.detach(), x, place)
        spread = self.process.learned(learned, x, place)
        term = self._term(wide, x, place, Posterior(mean, spread, clean))
        return _Terms(mse, term * len(self.process.abar) / 1000)

    def _term(self, images: Tensor, x: Tensor, t: Tensor, found: Posterior) -> Tensor:
        """KL between posteriors, or at the last step the likelihood of the pixels, in bits."""
        mean = self.process.mean(images, x, t)
        spread = expand(self.process.log_variance("small")[t].to(x), x)
        kl = kl_bits(mean, spread, found.mean, found.log_variance)
        surprise = pixel_bits(images, found.mean, found.log_variance / 2)
        last = expand(t.to(x.device) == 0, x)
        return torch.where(last, surprise, kl).flatten(1).mean(1)
