"""Resizing as two matrix products, and the expansion of grey pixels to three channels."""

import torch
from torch import Tensor

__all__ = ["colour", "corner_bilinear", "corner_resize"]


def colour(pixels: Tensor) -> Tensor:
    """Repeats a single channel three times; other images are returned unchanged."""
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


def corner_bilinear(size: int, out: int) -> Tensor:
    """Returns the (out, size) matrix of TensorFlow 1's bilinear resize, without half pixels."""
    position = torch.arange(out, dtype=torch.float32) * (size / out)
    low = position.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    share = position - low
    matrix = torch.zeros(out, size)
    rows = torch.arange(out)
    matrix[rows, low] += 1 - share
    matrix[rows, high] += share
    return matrix


def corner_resize(images: Tensor, out: int) -> Tensor:
    """Resizes float images (B, C, H, W) to (B, C, out, out) like TensorFlow 1."""
    rows = corner_bilinear(images.shape[-2], out).to(images.device)
    columns = corner_bilinear(images.shape[-1], out).to(images.device)
    return rows @ images @ columns.T
