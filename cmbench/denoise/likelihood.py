r"""Likelihood by the instantaneous change of variables along the probability-flow ODE.

Score SDE (https://arxiv.org/abs/2011.13456, section 4.3 and appendix D.2): with the slope v of the
ODE, ln p(y_0) = ln prior(y_1) + integral of div v. The divergence is estimated by Skilling's and
Hutchinson's z' (dv/dy) z, with one probe z per image, fixed along the path. Bits per dimension are
those of 8-bit pixels, dequantised by uniform noise.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise._rk45 import integrate
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sde_denoiser import Scores

__all__ = ["Likelihood", "bits_per_dimension", "dequantised", "log_likelihood"]


class Likelihood(NamedTuple):
    """Log density (B,) of images in [-1, 1], in nats, and evaluations per image (B,), int64."""

    log_density: Tensor
    evaluations: Tensor


def log_likelihood(
    denoiser: Denoiser,
    images: Tensor,
    noise: Noise,
    labels: Tensor | None = None,
    *,
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    end: float = 1e-5,
) -> Likelihood:
    """Estimates the model's log density of images; the only bias is the ODE solver's.

    Args:
        denoiser: The denoiser of a score SDE; any other is treated as a VE process.
        images: Dequantised images (B, C, H, W) in [-1, 1].
        noise: Seeded noise; the probes are its uniform draw 0 or its normal draw 0.
        labels: Class labels (B,) int64 for a conditional model.
        probe: Distribution of the probes.
        rtol: Relative tolerance of RK45, whose step sizes are chosen per image.
        atol: Absolute tolerance of RK45.
        end: The t at which the path starts: the images are taken as the state there.

    Raises:
        UserError: If the solver can't meet the tolerance.
    """
    scores, wide = Scores(denoiser), images.double()
    size = wide[0].numel()
    z = noise.normal(0).double() if probe == "gaussian" else 2.0 * (noise.uniform(0) < 0.5) - 1
    z = z.to(wide)

    def slope(rows: Tensor, t: Tensor, index: Tensor) -> Tensor:
        row_labels = None if labels is None else labels[index]
        state = rows[:, :size].reshape(-1, *wide.shape[1:])
        with torch.enable_grad():
            state = state.detach().requires_grad_()
            velocity = scores.flow(state, t, row_labels)
            (product,) = torch.autograd.grad((velocity * z[index]).sum(), state)  # z' (dv/dy)
        trace = (product * z[index]).flatten(1).sum(1, keepdim=True)
        return torch.cat([velocity.detach().flatten(1), trace], dim=1)

    state = scores.to_process(wide).flatten(1)
    state = torch.cat([state, torch.zeros_like(state[:, :1])], dim=1)
    path = integrate(slope, state, end, 1.0, rtol=rtol, atol=atol)
    latent, trace = path.y[:, :size], path.y[:, size]
    deviation = scores.sde.prior_std()
    prior = -0.5 * (latent / deviation).square().sum(1)
    prior = prior - size * (math.log(deviation) + 0.5 * math.log(2 * math.pi))
    return Likelihood(prior + trace - size * math.log(scores.unit), path.evaluations)


def dequantised(pixels: Tensor, noise: Noise) -> Tensor:
    """Returns images in [-1, 1) from uint8 pixels (B, C, H, W), dequantised by uniform draw 1."""
    return (pixels.double() + noise.uniform(1).double().to(pixels.device)) / 128 - 1


def bits_per_dimension(log_density: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bits per value of 8-bit pixels, from the log density (nats) of dequantised images.

    A grey level is 1 / 128 wide in [-1, 1], so the uniform density on [-1, 1] has 8 bits.
    """
    return 7 - log_density / (math.prod(shape) * math.log(2))
