"""Decoys: floors, ceilings and frauds, scored under the same protocol as real models.

If a metric ranks a decoy above a model, that shows a weakness of the metric. Decoys return images
of a dataset, drawn with replacement by the first number of the latent; nothing is learned.
"""

import io
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from cmbench.api import Model, OneShot, Pending, UserError, create

__all__ = ["Decoy"]


class Decoy(Model):
    """A generator that returns or distorts images of a dataset.

    `real`: held-out images (the floor). `train`: the training images. `memoriser`: a tenth of
    them. `blurred`, `jpeg`: distorted training images. `mode_dropper`: training images of half of
    the classes. `gaussian`: the normal distribution of the training images' pixels, with their
    colours and smoothness but no objects. `noise`: uniform values (the ceiling).
    """

    makes: ClassVar[frozenset[str]] = frozenset({"oneshot"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "oneshot"}

    form: Literal[
        "real", "train", "memoriser", "blurred", "jpeg", "mode_dropper", "gaussian", "noise"
    ]
    dataset: str | dict[str, Any] = "digits"

    def build(self) -> nn.Module:
        """Builds the generator, with its images if the dataset needs no path."""
        module = _Generator(self.form)
        try:
            module.take(create("dataset", self.dataset).open())
        except Pending:
            return module
        return module

    def load(self, module: nn.Module, weights: Path) -> None:
        """Opens the dataset at the path `weights`.

        Raises:
            UserError: If the path is a weights file, as a decoy has no weights.
        """
        assert isinstance(module, _Generator)
        if weights.suffix == ".safetensors":
            raise UserError(f"a decoy has no weights: {weights} belongs to another model")
        module.take(create("dataset", self.dataset).open(weights))


class _Generator(OneShot):
    def __init__(self, form: str) -> None:
        super().__init__((1, 1, 1), 1)
        self.form = form
        self.register_buffer(
            "pixels", torch.zeros(1, 1, 1, 1, dtype=torch.uint8), persistent=False
        )
        self.register_buffer("mean", torch.zeros(1), persistent=False)
        self.register_buffer("factor", torch.zeros(1, 1), persistent=False)

    def take(self, images: Any) -> None:
        """Stores the images that this form draws from."""
        indices = np.arange(len(images))
        if self.form == "memoriser":
            indices = indices[: max(1, len(indices) // 10)]
        elif self.form == "mode_dropper":
            indices = _half(images)
        self.shape = tuple(images.shape)
        self.latent = int(np.prod(self.shape))
        if self.form == "gaussian":
            self.mean, self.factor = _normal(images)
        else:
            self.pixels = torch.from_numpy(np.ascontiguousarray(images.pixels(indices)))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.form == "gaussian":
            values = self.mean + z.double().flatten(1) @ self.factor.mT
            return values.float().reshape(len(z), *self.shape)
        uniform = torch.special.ndtr(z.double())
        if self.form == "noise":
            return (2 * uniform - 1).float().reshape(len(z), *self.shape)
        count = len(self.pixels)
        index = (uniform[:, 0] * count).long().clamp(max=count - 1)
        pixels = self.pixels[index.to(self.pixels.device)]
        if self.form == "jpeg":
            pixels = torch.stack([_jpeg(image) for image in pixels.cpu()]).to(pixels.device)
        images = pixels.to(z.device).float() / 127.5 - 1
        return _blurred(images) if self.form == "blurred" else images


def _half(images: Any) -> np.ndarray:
    """Indices of images of the first half of the classes; without labels, the darker half."""
    labels = images.labels()
    if labels is not None and labels.max() > 0:
        return np.flatnonzero(labels <= labels.max() // 2)
    light = images.pixels(np.arange(len(images))).reshape(len(images), -1).mean(axis=1)
    return np.flatnonzero(light <= np.median(light))


def _normal(images: Any, part: int = 2000) -> tuple[Tensor, Tensor]:
    """Mean (D,) of the flattened images in [-1, 1], and F (D, D) with F F' = their covariance."""
    size = int(np.prod(images.shape))
    total, square = np.zeros(size), np.zeros((size, size))
    for first in range(0, len(images), part):
        index = np.arange(first, min(first + part, len(images)))
        rows = images.pixels(index).reshape(len(index), size).astype(np.float32) / 127.5 - 1
        total += rows.sum(axis=0, dtype=np.float64)
        square += rows.T @ rows
    mean = total / len(images)
    values, vectors = np.linalg.eigh(square / len(images) - np.outer(mean, mean))
    factor = vectors * np.sqrt(values.clip(min=0))
    return torch.from_numpy(mean), torch.from_numpy(factor)


def _jpeg(image: Tensor, quality: int = 30) -> Tensor:
    grey = image.shape[0] == 1
    picture = Image.fromarray(image[0].numpy() if grey else image.permute(1, 2, 0).numpy())
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(file)))
    return decoded[None] if grey else decoded.permute(2, 0, 1)


def _blurred(images: Tensor, sigma: float = 1.0) -> Tensor:
    place = torch.arange(-2, 3, dtype=images.dtype, device=images.device)
    line = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = (line[:, None] * line[None, :] / line.sum() ** 2).expand(images.shape[1], 1, 5, 5)
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(padded, kernel, groups=images.shape[1])
