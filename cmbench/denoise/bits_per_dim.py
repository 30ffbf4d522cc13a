r"""Bits per dimension of a discrete VP process, by its variational bound.

DDPM (https://arxiv.org/abs/2006.11239, eq. 5 and section 3.3), iDDPM
(https://arxiv.org/abs/2102.09672, eq. 4-7): L_T + sum_t L_t + L_0, in bits a value,

    L_T = KL(q(x_T | x0) || N(0, I)),    L_t = KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)),
    L_0 = -log p(x0 | x_1), a Gaussian cut into the 256 bins of 8-bit images.

In sigma-space, where KL is the same: q has mean r x + (1 - r) x0 and the small variance, p mean
r x + (1 - r) D and its own.
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
    """In bits per dimension, by image.

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
    """The bound of 8-bit `images` (B, C, H, W) in [-1, 1]; T evaluations an image.

    Args:
        denoiser: The model.
        images: Values (k / 127.5) - 1.
        noise: Draw t makes the state of step t.
        labels: Class labels (B,), of a conditional model.
        variance: The model's; `learned` of a network that has it.
        clip: Clip D to [-1, 1], as the authors do.

    Raises:
        UserError: If a learned variance is asked of a network that has none.
    """
    images = images.to(torch.float64)
    found = []
    for t in range(len(denoiser.levels)):
        state = images + float(denoiser.levels[t]) * noise.normal(t).to(images)
        found.append(_step(denoiser, images, state, t, labels, variance, clip=clip))
    steps = torch.stack(found, dim=1)
    prior = _prior(images, float(denoiser.abar[-1]))
    return Bound(prior + steps.sum(1), prior, steps)


def kl_bits(mean: Tensor, log_var: Tensor, other: Tensor, other_log_var: Tensor) -> Tensor:
    """KL(N(mean, e^log_var) || N(other, e^other_log_var)) by value, in bits; shapes broadcast."""
    ratio = log_var - other_log_var
    apart = (mean - other) ** 2 * (-other_log_var).exp()
    bits: Tensor = (ratio.exp() - 1 - ratio + apart) / (2 * math.log(2))
    return bits


def pixel_bits(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """-log2 of the probability of 8-bit values under a Gaussian cut into bins of 2 / 255.

    The bins at both ends are open; a probability counts as 1e-12 at least.
    """
    narrow = (-log_scale).exp()
    above = _normal_cdf((images - mean + 1 / 255) * narrow)
    below = _normal_cdf((images - mean - 1 / 255) * narrow)
    inside = torch.where(images > 0.999, 1 - below, above - below)
    chance = torch.where(images < -0.999, above, inside)
    return -chance.clamp(min=1e-12).log2()


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
    """L_t (B,) at the state in sigma-space."""
    now = denoiser.levels[t : t + 1].expand(len(images)).to(images)
    clean, told = denoiser.split(state, now, labels)
    clean = (clean.clamp(-1, 1) if clip else clean).to(images)
    small, large = _log_variances(denoiser, t)
    if variance == "learned":
        if told is None:
            raise UserError(
                "the network has no learned variance", expected="variance: small or large"
            )
        share = (told.to(images) + 1) / 2
        spread = share * large + (1 - share) * small
    else:
        # DDPM's large variance borrows the small one of the step after at step 0.
        spread = torch.full_like(images, large if variance == "large" and t else small)
    if t == 0:
        return pixel_bits(images, clean, spread / 2).flatten(1).mean(1)
    kept = (denoiser.levels[t - 1] / denoiser.levels[t]) ** 2
    mean, other = (kept * state + (1 - kept) * end for end in (images, clean))
    truth = torch.tensor(small, dtype=images.dtype, device=images.device)
    return kl_bits(mean, truth, other, spread).flatten(1).mean(1)


def _log_variances(denoiser: DiscreteVPDenoiser, t: int) -> tuple[float, float]:
    """Logarithms of the small and the large variance of step t, in sigma-space.

    At step 0 the small one would be zero: it is that of step 1, in the process's own units.
    """
    now, then = float(denoiser.levels[t]), float(denoiser.levels[t - 1]) if t else 0.0
    gone = now**2 - then**2
    large = math.log(gone * (1 + then**2) / (1 + now**2))
    if t:
        return math.log(then**2 * gone / now**2), large
    return _log_variances(denoiser, 1)[0] + math.log(float(denoiser.abar[0])), large


def _prior(images: Tensor, abar: float) -> Tensor:
    zero, spread = images.new_zeros(()), images.new_tensor(math.log(1 - abar))
    return kl_bits(math.sqrt(abar) * images, spread, zero, zero).flatten(1).mean(1)


def _normal_cdf(x: Tensor) -> Tensor:
    """The authors' approximation by tanh, which their bits per dimension rest on."""
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
