"""The degradations of the authors' cold-diffusion vectors, as their meta.json states them."""

import torch

from cmbench.core.random import Noise
from cmbench.degradations.blur import Blur
from cmbench.degradations.inpainting import Inpainting


def blur_of(vectors, routine, **more):
    told = vectors.meta["blur_routines"][routine]
    return Blur(
        levels=told["timesteps"],
        routine=routine,
        kernel_size=told["kernel_size"],
        kernel_std=told["kernel_std"],
        **more,
    )


def fade_of(vectors, routine, std):
    """Inpainting, and the noise whose masks are where the authors' were."""
    spec = Inpainting(
        levels=len(vectors[f"fade/{routine}/kernels"]), routine=routine, kernel_std=std
    )
    return spec, Corners(vectors.meta["rx"], vectors.meta["ry"], vectors["img"].shape[1:])


def cut(images):
    """The official 8-bit rounding: truncated."""
    return ((images + 1) * 0.5 * 255).int().float() / 255 * 2 - 1


class Corners(Noise):
    """Noise whose uniform draws are the recorded corners of the masks."""

    def __init__(self, top, left, shape):
        super().__init__(0, range(len(top)), shape)
        self.corners = torch.tensor([top, left]).T

    def uniform(self, draw):
        drawn = torch.zeros(len(self), *self.shape)
        drawn[:, 0, 0, :2] = (self.corners + 0.5) / (self.shape[1] + 1)
        return drawn
