"""Zero-shot editing with a consistency function: colourisation, super-resolution, inpainting.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithm 4: part of the image is known in
an orthogonal basis; each time point denoises, restores the known part, and adds noise again.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers._ode import denoise

__all__ = ["colourise", "edit", "inpaint", "super_resolve"]

Replace = Callable[[Tensor], Tensor]


def edit(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Noise,
    replace: Replace,
    labels: Tensor | None = None,
    *,
    clip: bool = True,
) -> Tensor:
    """Refines x (B, C, H, W) at sigmas[0]; `replace` restores the known part at each point.

    Point j uses noise draw j + 1. The last of `sigmas` only sets the noise that remains (none at
    sigma_min). NFE = len(sigmas) - 1. The result may lie slightly outside [-1, 1].
    """
    for j, (now, then) in enumerate(itertools.pairwise(sigmas)):
        clean = denoise(denoiser, x, now, labels)
        clean = replace(clean.clamp(-1, 1) if clip else clean)
        level = min(max(then, denoiser.sigma_min), denoiser.sigma_max)
        remaining = math.sqrt(max(level**2 - denoiser.sigma_min**2, 0.0))
        # Algorithm 4: x = x0 + sqrt(tau^2 - eps^2) z.
        x = clean + remaining * noise.normal(j + 1).to(clean.dtype)
    return x


def colourise(images: Tensor) -> tuple[Tensor, Replace]:
    """Returns the grey images of `images` (B, 3, H, W) and a function that keeps their luma.

    The first basis vector is the luma (0.2989, 0.5870, 0.1140), normalised.
    """
    basis = _orthogonal(torch.tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64))

    def to_basis(x: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", x, basis.to(x))

    def from_basis(x: Tensor) -> Tensor:
        return torch.einsum("bdhw,cd->bchw", x, basis.to(x))

    free = torch.ones(3, device=images.device, dtype=images.dtype)[:, None, None]
    free[0] = 0
    known = to_basis(images) * (1 - free)
    return from_basis(known), lambda x: from_basis(
        known.to(x.dtype) + to_basis(x) * free.to(x.dtype)
    )


def super_resolve(images: Tensor, patch: int) -> tuple[Tensor, Replace]:
    """Returns images of patch means, constant per patch, and a function that keeps the means."""

    def means(x: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(x, patch)
        return small.repeat_interleave(patch, 2).repeat_interleave(patch, 3)

    # The other basis vectors of a patch span the images of mean zero, so x - means(x) projects
    # onto them without writing out a basis.
    known = means(images)
    return known, lambda x: known.to(x.dtype) + x - means(x)


def inpaint(images: Tensor, missing: Tensor, fill: float = -1.0) -> tuple[Tensor, Replace]:
    """Returns images with `missing` (1 where unknown) set to `fill`; a function keeps the rest."""
    known = images * (1 - missing)
    return known + fill * missing, lambda x: known.to(x.dtype) + x * missing.to(x.dtype)


def _orthogonal(first: Tensor) -> Tensor:
    """Returns an orthogonal matrix whose first column is `first`, normalised."""
    start = torch.eye(len(first), dtype=first.dtype)
    start[:, 0] = first / first.norm()
    basis = torch.linalg.qr(start)[0]
    return basis * (basis[:, 0] @ first).sign()
