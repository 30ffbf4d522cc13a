"""Cutting images to 8 bits as the released cold-diffusion code does: truncated, not rounded."""

from torch import Tensor

__all__ = ["truncated"]


def truncated(images: Tensor) -> Tensor:
    """Images in [-1, 1] cut down to the nearest of 256 levels, (x + 1) * 127.5 as an integer."""
    return ((images + 1) * 0.5 * 255).int().to(images.dtype) / 255 * 2 - 1
