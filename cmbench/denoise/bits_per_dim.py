r"""Bits per dimension of a discrete VP process, by its variational bound.

DDPM (https://arxiv.org/abs/2006.11239, eq. 5 and section 3.3), iDDPM
(https://arxiv.org/abs/2102.09672, eq. 4-7): L_T + sum_t L_t + L_0, in bits per value,

    L_T = KL(q(x_T | x0) || N(0, I)),    L_t = KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)),
    L_0 = -log p(x0 | x_1), a Gaussian discretised to the 256 bins of 8-bit images.

    KL is the same in sigma-space: there q has mean r x + (1 - r) x0 and the small variance, and p
    has mean r x + (1 - r) D and its own variance.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser

__all__ = ["Bound", "kl_bits", "pixel_bits", "variational_bound"]


class Bound(NamedTuple):
    """The variational bound in bits per dimension, per image.

    Args:
        total: The bound, (B,).
        prior: L_T, (B,).
        steps: L_0, L_1, ..., L_{T-1}, (B, T).
    """

    total: Tensor
    prior: Tensor
    steps: Tensor


@torch.no_grad()
def variational_bound(
    denoiser: DiscreteVPDenoiser,
    images: Tensor,
    noise: Noise,
    labels: Tensor | None = None,
    *,
    variance: Literal["learned", "small", "large"] = "small",
    clip: bool = True,
) -> Bound:
    """Computes the bound of 8-bit `images` (B, C, H, W) in [-1, 1]; T evaluations per image.

    Args:
        denoiser: The model.
        images: Values (k / 127.5) - 1.
        noise: Seeded noise; the state of step t uses draw t.
        labels: Class labels (B,) for a conditional model.
        variance: The model's variance; `learned` needs a network that predicts it.
        clip: Whether D is clipped to [-1, 1], as in the authors' code.

    Raises:
        UserError: If `variance` is `learned` and the network has no learned variance.
    """
    images = images.to(torch.float64)
    terms = []
    for t in range(len(denoiser.levels)):
        state = images + float(denoiser.levels[t]) * noise.normal(t).to(images)
        terms.append(_step(denoiser, images, state, t, labels, variance, clip=clip))
    steps = torch.stack(terms, dim=1)
    prior = _prior(images, float(denoiser.abar[-1]))
    return Bound(prior + steps.sum(1), prior, steps)


def kl_bits(mean: Tensor, log_var: Tensor, other: Tensor, other_log_var: Tensor) -> Tensor:
    """KL(N(mean, e^log_var) || N(other, e^other_log_var)) per value, in bits; shapes broadcast."""
    ratio = log_var - other_log_var
    distance = (mean - other) ** 2 * (-other_log_var).exp()
    bits: Tensor = (ratio.exp() - 1 - ratio + distance) / (2 * math.log(2))
    return bits


def pixel_bits(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """-log2 of the probability of 8-bit values under a Gaussian discretised to bins of 2 / 255.

    The bins at both ends are open; probabilities below 1e-12 count as 1e-12.
    """
    inverse_scale = (-log_scale).exp()
    above = _normal_cdf((images - mean + 1 / 255) * inverse_scale)
    below = _normal_cdf((images - mean - 1 / 255) * inverse_scale)
    inside = torch.where(images > 0.999, 1 - below, above - below)
    probability = torch.where(images < -0.999, above, inside)
    return -probability.clamp(min=1e-12).log2()


def _step(
    denoiser: DiscreteVPDenoiser,
    images: Tensor,
    state: Tensor,
    t: int,
    labels: Tensor | None,
    variance: str,
    *,
    clip: bool,
) -> Tensor:
    """Computes L_t (B,) at the state in sigma-space."""
    now = denoiser.levels[t : t + 1].expand(len(images)).to(images)
    clean, learned = denoiser.split(state, now, labels)
    clean = (clean.clamp(-1, 1) if clip else clean).to(images)
    small, large = _log_variances(denoiser, t)
    if variance == "learned":
        if learned is None:
            raise UserError(
                "the network has no learned variance", expected="variance: small or large"
            )
        share = (learned.to(images) + 1) / 2  # iDDPM, eq. 15: interpolation between beta~ and beta
        spread = share * large + (1 - share) * small
    else:
        # At step 0 DDPM's large variance is replaced by the small one, that of step 1.
        spread = torch.full_like(images, large if variance == "large" and t else small)
    if t == 0:
        return pixel_bits(images, clean, spread / 2).flatten(1).mean(1)
    ratio = (denoiser.levels[t - 1] / denoiser.levels[t]) ** 2
    mean, other = (ratio * state + (1 - ratio) * end for end in (images, clean))
    truth = torch.tensor(small, dtype=images.dtype, device=images.device)
    return kl_bits(mean, truth, other, spread).flatten(1).mean(1)


def _log_variances(denoiser: DiscreteVPDenoiser, t: int) -> tuple[float, float]:
    """Returns the logarithms of the small and the large variance of step t, in sigma-space.

    At step 0 the small one would be zero: that of step 1 replaces it, in the process's units.
    """
    now, then = float(denoiser.levels[t]), float(denoiser.levels[t - 1]) if t else 0.0
    removed = now**2 - then**2
    large = math.log(removed * (1 + then**2) / (1 + now**2))
    if t:
        return math.log(then**2 * removed / now**2), large
    return _log_variances(denoiser, 1)[0] + math.log(float(denoiser.abar[0])), large


def _prior(images: Tensor, abar: float) -> Tensor:
    zero, spread = images.new_zeros(()), images.new_tensor(math.log(1 - abar))
    return kl_bits(math.sqrt(abar) * images, spread, zero, zero).flatten(1).mean(1)


def _normal_cdf(x: Tensor) -> Tensor:
    """Normal distribution function in the authors' tanh approximation, part of their results."""
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
