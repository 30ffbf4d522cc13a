"""Pixels: the range of images, the quantisation rules, and grids to look at.

Images are float, NCHW, in [-1, 1]; pixels are uint8, NCHW. Peers differ by one grey level on half
of all pixels, since they round differently: the rule is named in the protocol.
"""

from typing import Literal

import torch
from torch import Tensor

from cmbench.core.errors import CmbenchError

__all__ = ["NonFiniteSamplesError", "Quantisation", "image_grid", "to_images", "to_pixels"]

Quantisation = Literal["round", "truncate"]
"""round: EDM's, x * 127.5 + 128 cut to an integer. truncate: OpenAI's, (x + 1) * 127.5 cut."""


class NonFiniteSamplesError(CmbenchError):
    """Samples that are NaN or infinite: a failure with a reason, never a number."""

    def __init__(self, rows: list[int], total: int) -> None:
        self.rows = rows
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        super().__init__(
            f"{len(rows)} of {total} samples hold NaN or infinity (in this batch: {shown}); "
            "the model or the sampler diverged"
        )


def to_pixels(images: Tensor, rule: Quantisation) -> Tensor:
    """Quantises images (B, C, H, W) in [-1, 1] to uint8, clipping what lies outside.

    Raises:
        NonFiniteSamplesError: If a sample holds NaN or infinity, naming its rows.
    """
    finite = torch.isfinite(images).flatten(1).all(1)
    if not bool(finite.all()):
        raise NonFiniteSamplesError((~finite).nonzero().flatten().tolist(), len(images))
    scaled = images * 127.5 + 128 if rule == "round" else (images + 1) * 127.5
    return scaled.clamp(0, 255).to(torch.uint8)


def to_images(pixels: Tensor) -> Tensor:
    """Maps uint8 pixels (B, C, H, W) to float32 images in [-1, 1]: x / 127.5 - 1."""
    return pixels.to(torch.float32) / 127.5 - 1


def image_grid(pixels: Tensor, columns: int, *, gap: int = 1) -> Tensor:
    """Lays pixels (N, C, H, W) out row by row in one picture (H', W', 3), white between."""
    count, channels, height, width = pixels.shape
    rows = -(-count // columns)
    canvas = torch.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=torch.uint8
    )
    colour = pixels if channels == 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    for i in range(count):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = colour[i].permute(1, 2, 0).cpu()
    return canvas
