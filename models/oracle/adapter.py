"""Oracles: ideal denoisers in closed form, for testing suites, samplers and metrics."""

from typing import Any, ClassVar, Literal

import torch
from torch import nn

from cmbench.api import ImageShape, Model, create, oracles

__all__ = ["Oracle"]


class Oracle(Model):
    """An ideal denoiser.

    `gaussian`: of values N(mean, spread^2). `consistency`: the exact consistency function of
    `gaussian`. `points`: of a finite dataset, whose images it reproduces.
    """

    sampler: ClassVar[dict[str, Any] | None] = {"name": "heun"}

    form: Literal["gaussian", "consistency", "points"] = "gaussian"
    shape: ImageShape = (1, 8, 8)
    mean: float = 0.0
    spread: float = 0.5
    dataset: str = "digits"

    def build(self) -> nn.Module:
        """Builds the denoiser, which has no weights."""
        if self.form == "points":
            images = create("dataset", self.dataset).open()
            pixels = torch.from_numpy(images.pixels(range(len(images))))
            return oracles.PointsDenoiser(pixels.double() / 127.5 - 1)
        kinds = {"gaussian": oracles.GaussianDenoiser, "consistency": oracles.GaussianConsistency}
        return kinds[self.form](self.shape, mean=self.mean, spread=self.spread)
