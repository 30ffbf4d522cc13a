"""Animorphosis: the image turns into one of another data set, or into a pattern.

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
"""The draw that chooses the other image."""


class Animorphosis(Mixing):
    """z is an image of `dataset` chosen by the noise; with no data set, a wave of random angle,
    period and phase for each channel.
    """

    dataset: dict[str, Any] | None = Field(default=None, description="as in a suite: {name: ...}")

    def other(self, noise: Noise) -> Tensor:
        """The images mixed in, (B, C, H, W) in [-1, 1].

        Raises:
            UserError: If the data set's images are of another shape.
            Pending: If the data set is not there.
        """
        drawn = noise.uniform(CHOICE_DRAW)
        if self.dataset is None:
            return _waves(drawn)
        images = _opened(canonical(self.dataset))
        if tuple(images.shape) != tuple(noise.shape):
            raise UserError(
                f"animorphosis: images of {self.dataset['name']} are {tuple(images.shape)}",
                expected=f"{tuple(noise.shape)}",
            )
        chosen = (drawn.flatten(1)[:, 0].double().cpu().numpy() * len(images)).astype(np.int64)
        return to_images(torch.from_numpy(images.pixels(chosen))).to(noise.device, noise.dtype)


@lru_cache(maxsize=4)
def _opened(spec: str) -> Any:
    return create("dataset", json.loads(spec)).open()


def _waves(drawn: Tensor) -> Tensor:
    """A sine wave for each channel: angle, periods a side (1 to 3) and phase from three draws."""
    height, width = drawn.shape[-2:]
    angle, extra, phase = drawn.flatten(2)[:, :, :3, None, None].unbind(2)
    rows = torch.linspace(0, 1, height, device=drawn.device)[:, None]
    columns = torch.linspace(0, 1, width, device=drawn.device)
    along = rows * (math.pi * angle).sin() + columns * (math.pi * angle).cos()
    return torch.sin(2 * math.pi * ((1 + 2 * extra) * along + phase))
