"""Resizing pixels as two matrix products, and grey pixels as three channels."""

import torch
from torch import Tensor

__all__ = ["colour", "corner_bilinear", "corner_resize"]


def colour(pixels: Tensor) -> Tensor:
    """One channel repeated to three; three are left as they are."""
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


def corner_bilinear(size: int, out: int) -> Tensor:
    """The (out, size) matrix of TensorFlow 1's bilinear resize, without half pixels."""
    place = torch.arange(out, dtype=torch.float32) * (size / out)
    low = place.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    share = place - low
    matrix = torch.zeros(out, size)
    lines = torch.arange(out)
    matrix[lines, low] += 1 - share
    matrix[lines, high] += share
    return matrix


def corner_resize(images: Tensor, out: int) -> Tensor:
    """Float images (B, C, H, W) at (B, C, out, out), as TensorFlow 1 resizes them."""
    rows = corner_bilinear(images.shape[-2], out).to(images.device)
    columns = corner_bilinear(images.shape[-1], out).to(images.device)
    return rows @ images @ columns.T
