"""Animorphosis: the image turns into one of another dataset, or into a pattern.

Cold Diffusion (https://arxiv.org/abs/2208.09392), section 5.3: people mixed with animals.
"""

import json
import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.digests import canonical
from cmbench.core.errors import UserError
from cmbench.core.images import to_images
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.degradations._mixing import Mixing

__all__ = ["Animorphosis"]

CHOICE_DRAW = 8
"""Index of the noise draw that chooses the other image."""


class Animorphosis(Mixing):
    """z is an image of `dataset` chosen by the noise; without a dataset, it is a sine wave of
    random angle, period and phase per channel.
    """

    dataset: dict[str, Any] | None = Field(
        default=None, description="a dataset as in a suite: {name: ...}"
    )

    def other(self, noise: Noise) -> Tensor:
        """Returns the images to mix in, (B, C, H, W) in [-1, 1].

        Raises:
            UserError: If the dataset's images have another shape.
            Pending: If the dataset is not on this machine.
        """
        uniform = noise.uniform(CHOICE_DRAW)
        if self.dataset is None:
            return _waves(uniform)
        images = _opened(canonical(self.dataset))
        if tuple(images.shape) != tuple(noise.shape):
            raise UserError(
                f"animorphosis: images of {self.dataset['name']} are {tuple(images.shape)}",
                expected=f"{tuple(noise.shape)}",
            )
        index = (uniform.flatten(1)[:, 0].double().cpu().numpy() * len(images)).astype(np.int64)
        return to_images(torch.from_numpy(images.pixels(index))).to(noise.device, noise.dtype)


@lru_cache(maxsize=4)
def _opened(spec: str) -> Any:
    return create("dataset", json.loads(spec)).open()


def _waves(uniform: Tensor) -> Tensor:
    """Returns a sine wave per channel: angle, periods per side (1 to 3) and phase from 3 draws."""
    height, width = uniform.shape[-2:]
    angle, extra, phase = uniform.flatten(2)[:, :, :3, None, None].unbind(2)
    rows = torch.linspace(0, 1, height, device=uniform.device)[:, None]
    columns = torch.linspace(0, 1, width, device=uniform.device)
    along = rows * (math.pi * angle).sin() + columns * (math.pi * angle).cos()
    return torch.sin(2 * math.pi * ((1 + 2 * extra) * along + phase))
