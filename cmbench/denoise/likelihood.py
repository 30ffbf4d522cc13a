r"""Likelihood by instantaneous change of variables along the probability-flow ODE.

Score SDE (https://arxiv.org/abs/2011.13456, section 4.3 and appendix D.2): with slope v of the
ODE, ln p(y_0) = ln prior(y_1) + integral of div v, its divergence estimated by Skilling's and
Hutchinson's z' (dv/dy) z, one probe z an image held fixed along the path. Bits per dimension are
those of 8-bit pixels, made continuous by uniform noise.
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
    """ln of the density of images in [-1, 1], (B,), and the evaluations of each, (B,) int64."""

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
    """The density that the model gives to images, estimated without bias but for the solver's.

    Args:
        denoiser: A score SDE's, or any other, taken for a VE process.
        images: (B, C, H, W) in [-1, 1], with noise in place of their quantisation.
        noise: Draws of the probes: uniform draw 0, or normal draw 0.
        labels: (B,) int64 for a conditional model.
        probe: Distribution of the probes.
        rtol: Relative tolerance of RK45; each image has step sizes of its own.
        atol: Absolute tolerance.
        end: The t at which the path starts: images are taken for the state there.

    Raises:
        UserError: If the tolerance can't be met.
    """
    scores, wide = Scores(denoiser), images.double()
    size = wide[0].numel()
    z = noise.normal(0).double() if probe == "gaussian" else 2.0 * (noise.uniform(0) < 0.5) - 1
    z = z.to(wide)

    def slope(rows: Tensor, t: Tensor, places: Tensor) -> Tensor:
        told = None if labels is None else labels[places]
        state = rows[:, :size].reshape(-1, *wide.shape[1:])
        with torch.enable_grad():
            state = state.detach().requires_grad_()
            found = scores.flow(state, t, told)
            (pulled,) = torch.autograd.grad((found * z[places]).sum(), state)
        trace = (pulled * z[places]).flatten(1).sum(1, keepdim=True)
        return torch.cat([found.detach().flatten(1), trace], dim=1)

    state = scores.to_process(wide).flatten(1)
    state = torch.cat([state, torch.zeros_like(state[:, :1])], dim=1)
    path = integrate(slope, state, end, 1.0, rtol=rtol, atol=atol)
    latent, trace = path.y[:, :size], path.y[:, size]
    deviation = scores.sde.prior_std()
    prior = -0.5 * (latent / deviation).square().sum(1)
    prior = prior - size * (math.log(deviation) + 0.5 * math.log(2 * math.pi))
    return Likelihood(prior + trace - size * math.log(scores.unit), path.evaluations)


def dequantised(pixels: Tensor, noise: Noise) -> Tensor:
    """Images in [-1, 1) from uint8 pixels (B, C, H, W), uniform draw 1 within each grey level."""
    return (pixels.double() + noise.uniform(1).double().to(pixels.device)) / 128 - 1


def bits_per_dimension(log_density: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Bits a value of 8-bit pixels, from ln of the density of dequantised images of `shape`.

    A grey level is 1 / 128 wide in [-1, 1]: a model that knows nothing has 8 bits.
    """
    return 7 - log_density / (math.prod(shape) * math.log(2))
