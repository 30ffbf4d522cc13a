"""Edits images zero-shot by a trained consistency model."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cmbench.cards.cards import find_card
from cmbench.cards.open import open_card, open_module
from cmbench.core.errors import UserError
from cmbench.core.images import image_grid, to_images, to_pixels
from cmbench.core.random import Noise
from cmbench.datasets.base import ImageSet
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers._editing import colourise, edit, inpaint, super_resolve

__all__ = ["Task", "edit_sheet", "load_denoiser"]

Task = Literal["inpaint", "colourise", "super-resolve", "interpolate", "denoise"]


def load_denoiser(card: str, weights: Path | None, device: torch.device) -> Denoiser:
    """Loads the card's denoiser with its own weights, or with the given ones.

    Raises:
        UserError: If it needs weights and has none, or is not a denoiser.
    """
    model, file = open_card(find_card(card), weights)
    module = open_module(model, file, device)
    if not isinstance(module, Denoiser):
        raise UserError(f"model {card} is not a consistency model: it has no noise level")
    return module


@torch.inference_mode()
def edit_sheet(
    denoiser: Denoiser, images: ImageSet, task: Task, *, count: int, steps: int, seed: int
) -> Tensor:
    """Edits the first `count` images; returns a sheet (H, W, 3) uint8: original, input, result.

    This is zero-shot editing (Consistency Models, Algorithm 4 and appendix D).

    Raises:
        UserError: If the task does not fit the images.
    """
    if images.shape != denoiser.shape:
        raise UserError(
            f"images of shape {images.shape}, a model of shape {denoiser.shape}",
            fix="use images of the model's data set",
        )
    pixels = torch.from_numpy(images.pixels(range(count)))
    originals = to_images(pixels).double()
    noise = Noise(seed, range(count), denoiser.shape, dtype=torch.float64)
    inputs, edited = _edited(denoiser, originals, task, noise, steps)
    rows = torch.cat([pixels, to_pixels(inputs, "round"), to_pixels(edited, "round")])
    return image_grid(rows, count)


def _edited(
    denoiser: Denoiser, originals: Tensor, task: Task, noise: Noise, steps: int
) -> tuple[Tensor, Tensor]:
    top = denoiser.sigma_max
    if task == "interpolate":
        return _interpolated(denoiser, noise)
    if task == "denoise":
        noisy = originals + 0.5 * noise.normal(0)
        return noisy, denoiser(noisy, torch.full((len(noisy),), 0.5).double()).clamp(-1, 1)
    if task == "colourise":
        if denoiser.shape[0] != 3:
            raise UserError("only colour images can be colourised")
        known, replace = colourise(originals)
    elif task == "super-resolve":
        known, replace = super_resolve(originals, 2)
    else:
        missing = torch.zeros(1, 1, *denoiser.shape[1:], dtype=torch.float64)
        side = denoiser.shape[1]
        missing[..., side // 4 : side - side // 4, side // 4 : side - side // 4] = 1
        known, replace = inpaint(originals, missing)
    sigmas = karras_grid(steps + 1, denoiser.sigma_min, top).tolist()
    edited = edit(denoiser, known + top * noise.normal(0), sigmas, noise, replace)
    return known, edited.clamp(-1, 1)


def _interpolated(denoiser: Denoiser, noise: Noise) -> tuple[Tensor, Tensor]:
    """Interpolates spherically between two noises; returns the start noises and their images."""
    draws = noise.normal(0).flatten(1)
    a, b = draws[0], draws[1]
    angle = torch.arccos((a @ b) / (a.norm() * b.norm()))
    share = torch.linspace(0, 1, len(draws), dtype=draws.dtype)[:, None]
    # Spherical interpolation: (sin((1 - t) a) z1 + sin(t a) z2) / sin(a), angle a of z1, z2.
    mixed = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    starts = mixed.reshape(len(draws), *denoiser.shape)
    sigma = torch.full((len(starts),), denoiser.sigma_max, dtype=starts.dtype)
    return starts.clamp(-3, 3) / 3, denoiser(starts * denoiser.sigma_max, sigma).clamp(-1, 1)
