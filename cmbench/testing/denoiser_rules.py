"""Rules of a denoiser, checked by single calls at three noise levels."""

from collections.abc import Callable
from typing import Any

import torch

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.precondition import ConsistencyFunction
from cmbench.testing.rule import Broken, close

__all__ = ["DENOISER_RULES"]

IMAGES = 3


def _inputs(module: Denoiser, sigma: float, count: int = IMAGES) -> tuple[Any, ...]:
    noise = Noise(5, range(count), module.shape)
    x = 0.5 * noise.normal(1) + sigma * noise.normal(0)
    labels = noise.labels(module.classes) if module.classes else None
    return x, torch.full((count,), sigma), labels


def _levels(module: Denoiser) -> list[float]:
    middle = (module.sigma_min * module.sigma_max) ** 0.5
    known = module.round_sigma(torch.tensor([module.sigma_min, middle, module.sigma_max]))
    return [float(s) for s in known]


def _noise_range(module: Denoiser) -> None:
    if not 0 < module.sigma_min < module.sigma_max:
        raise Broken(
            f"sigma_min {module.sigma_min} and sigma_max {module.sigma_max}",
            "state noise levels in VE units, 0 < sigma_min < sigma_max",
        )


def _output(module: Denoiser) -> None:
    for sigma in _levels(module):
        x, levels, labels = _inputs(module, sigma)
        for dtype in (torch.float32, torch.float64):
            output = module(x.to(dtype), levels.to(dtype), labels)
            if output.shape != x.shape or output.dtype != dtype:
                raise Broken(
                    f"{tuple(x.shape)} {dtype} at sigma {sigma:g} gave {tuple(output.shape)} "
                    f"{output.dtype}",
                    "return the denoised images in the shape and type of x",
                )
            if not bool(torch.isfinite(output).all()):
                raise Broken(f"NaN or infinity at sigma {sigma:g}", "check the preconditioning")


def _inputs_kept(module: Denoiser) -> None:
    x, levels, labels = _inputs(module, _levels(module)[1])
    before = x.clone(), levels.clone()
    module(x, levels, labels)
    if not (torch.equal(x, before[0]) and torch.equal(levels, before[1])):
        raise Broken("forward changed its arguments", "use no in-place operation on x or sigma")


def _denoiser_alone(module: Denoiser) -> None:
    """Compares each image with its own sigma, alone and in a batch."""
    sigmas = torch.tensor(_levels(module))
    x, _, labels = _inputs(module, float(sigmas[1]))
    together = module(x, sigmas, labels)
    for i in range(IMAGES):
        label = None if labels is None else labels[i : i + 1]
        alone = module(x[i : i + 1], sigmas[i : i + 1], label)
        if not close(alone[0], together[i]):
            raise Broken(
                f"image {i} alone differs from image {i} in a batch by "
                f"{float((alone[0] - together[i]).abs().max()):.2g}",
                "use no statistic over the batch; sigma is a vector with one level per image",
            )


def _stateless(module: Denoiser) -> None:
    x, levels, labels = _inputs(module, _levels(module)[1])
    first = module(x, levels, labels)
    other = _inputs(module, _levels(module)[2])
    module(*other)
    if not close(module(x, levels, labels), first):
        raise Broken(
            "the same call gave another result after an intermediate call",
            "keep no state between calls; build in evaluation mode (dropout off)",
        )


def _boundary(module: Denoiser) -> None:
    if not isinstance(module, ConsistencyFunction):
        return
    x, levels, labels = _inputs(module, module.sigma_min)
    output = module(x, levels, labels)
    if not torch.allclose(output, x, atol=1e-5):
        raise Broken(
            f"|f(x, sigma_min) - x| reaches {float((output - x).abs().max()):.2g}",
            "set c_skip(sigma_min) = 1 and c_out(sigma_min) = 0",
        )


DENOISER_RULES: dict[str, Callable[[Denoiser], None]] = {
    "its range of noise levels is valid": _noise_range,
    "D(x, sigma) has the shape and type of x": _output,
    "forward leaves its arguments unchanged": _inputs_kept,
    "an image does not depend on its batch": _denoiser_alone,
    "it keeps no state between calls": _stateless,
    "a consistency function keeps its boundary condition": _boundary,
}
