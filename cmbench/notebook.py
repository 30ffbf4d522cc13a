"""Functions for notebooks: three lines from a name to images, and from images to scores.

import cmbench
model = cmbench.load_model("edm/cifar10_long")
samples = model.sample(64, nfe=17)
cmbench.evaluate(samples, reference="suites/reference/cifar10_train.efficientnet_lite0.npz")
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from cmbench.cards.cards import PlacedCard, find_card
from cmbench.cards.open import open_card, open_module
from cmbench.core.environment import pick_device
from cmbench.core.errors import UserError
from cmbench.core.images import Quantisation, image_grid
from cmbench.core.loader import create, load
from cmbench.core.nfe import EvaluationCounter
from cmbench.engine.context import JobContext
from cmbench.engine.sampling import default_batch
from cmbench.external.in_memory import score_pixels
from cmbench.record.folder import read_results
from cmbench.samplers.base import BoundGenerator, Sampler
from cmbench.store.shared import open_store

__all__ = ["LoadedModel", "Samples", "evaluate", "load_model", "results", "strip"]

_SHOWN = 64


@dataclass(frozen=True)
class Samples:
    """Generated images, and the model, sampler and seed that they come from.

    Args:
        pixels: uint8 (N, C, H, W).
        nfe: Network evaluations per image, counted.
        model: The name `family/card`.
        sampler: The sampler's specification.
        seed: Seed of the noise; image i depends only on (seed, i).
    """

    pixels: NDArray[np.uint8]
    nfe: float
    model: str
    sampler: dict[str, Any]
    seed: int

    def __len__(self) -> int:
        return len(self.pixels)

    def grid(self, columns: int = 8) -> Image.Image:
        """Draws the first 64 images as one picture."""
        shown = torch.from_numpy(self.pixels[:_SHOWN])
        return Image.fromarray(image_grid(shown, columns).numpy())

    def save(self, path: Path | str) -> None:
        """Writes all images as .npz for ADM's evaluator: `arr_0`, uint8 (N, H, W, C)."""
        np.savez(Path(path), arr_0=self.pixels.transpose(0, 2, 3, 1))

    def _repr_html_(self) -> str:
        picture = self.grid()
        zoom = max(1, 512 // picture.width)
        picture = picture.resize(
            (picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST
        )
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        name = html.escape(f"{self.model}, {self.sampler['name']}, {self.nfe:g} NFE, {len(self)}")
        return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name} images</figcaption></figure>'  # noqa: E501 - one element


class LoadedModel:
    """A model with its weights on a device."""

    def __init__(self, placed: PlacedCard, module: nn.Module, device: torch.device) -> None:
        self.placed, self.module, self.device = placed, module, device

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.module.parameters())
        return f"LoadedModel({self.placed.full_name}, {count:,} parameters, {self.device})"

    def sample(
        self,
        count: int,
        *,
        nfe: int | None = None,
        sampler: str | dict[str, Any] | None = None,
        seed: int = 0,
        batch: int | None = None,
        quantisation: Quantisation = "round",
    ) -> Samples:
        """Generates `count` images.

        Args:
            count: Number of images.
            nfe: Evaluations per image; None: those of the sampler's default number of steps.
            sampler: A sampler to replace that of the card or family.
            seed: Seed of the noise.
            batch: Images per batch; it changes them only through rounding.
            quantisation: The rule that rounds images to bytes.

        Raises:
            UserError: If the model has no default sampler and none is given, or a number is out
                of range.
            ImpossibleNFEError: If the sampler can't spend exactly `nfe`.
        """
        for name, value, least in (("count", count, 1), ("nfe", nfe, 1), ("seed", seed, 0),
                                   ("batch", batch, 1)):  # fmt: skip
            _require_number(name, value, least)
        method = self._sampler(sampler)
        if nfe is not None:
            method = method.with_nfe(nfe)
        generator = BoundGenerator(self.module, method)  # type: ignore[arg-type]
        size = batch or default_batch(generator.shape, self.device)
        parts = []
        with EvaluationCounter(generator.networks()) as counter:
            for first in range(0, count, size):
                indices = range(first, min(first + size, count))
                parts.append(generator.pixels(seed, indices, self.device, quantisation))
        pixels = torch.cat(parts).numpy()
        spent = counter.per_image(count)
        return Samples(pixels, spent, self.placed.full_name, method.spec(), seed)

    def _sampler(self, given: str | dict[str, Any] | None) -> Sampler:
        spec = given or self.placed.card.sampler or load("model", self.placed.family).sampler
        if spec is None:
            raise UserError(
                f"model '{self.placed.full_name}' has no sampler of its own",
                fix="pass a sampler, such as sampler='heun'",
            )
        method: Sampler = create("sampler", spec)
        return method


def load_model(
    name: str, *, weights: Path | str | None = None, device: str = "auto"
) -> LoadedModel:
    """Loads a model by its card, with shipped, downloaded or given weights.

    Args:
        name: The name `family/card`.
        weights: A weights file, or the output folder of `cmbench train`.
        device: A torch device, or auto.

    Raises:
        UserError: For an unknown card, or one that must be trained first.
        Pending: If official weights are not on this machine, with the command that downloads them.
    """
    placed, target = find_card(name), pick_device(device)
    adapter, file = open_card(placed, Path(weights) if weights is not None else None)
    return LoadedModel(placed, open_module(adapter, file, target), target)


def _require_number(name: str, value: int | None, least: int) -> None:
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if value is not None and not (is_integer and least <= value < 2**63):
        raise UserError(f"{name}={value!r}", expected=f"a whole number, {least} to 2^63 - 1")


def evaluate(
    images: Samples | NDArray[np.uint8],
    *,
    reference: str | Path | dict[str, Any],
    features: str | dict[str, Any] = "efficientnet_lite0",
    metrics: Sequence[str | dict[str, Any]] = ("frechet_distance", "precision_recall"),
    data: Path | str | None = None,
    size: tuple[int, int] | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Scores images; returns a table of value, standard error and 95% interval by metric.

    Its checks are those of `cmbench score`.

    Args:
        images: Samples, or uint8 (N, C, H, W).
        reference: A data set (`digits`, `cifar10:split=test`, a path of images, a mapping), or
            a file of statistics in any known format.
        features: The feature extractor.
        metrics: Metrics with their parameters.
        data: Path of the data set.
        size: Expected (height, width); that of the reference's images by default.
        device: A torch device, or auto.

    Raises:
        UserError: For an unknown name, images of another type or shape, or a reference that does
            not match.
        Pending: If data or weights are not on this machine.
    """
    pixels = images.pixels if isinstance(images, Samples) else images
    context = JobContext(open_store(), pick_device(device))
    rows = score_pixels(
        pixels, reference, context, features=features, metrics=metrics,
        data=Path(data) if data else None, size=size,
    )  # fmt: skip
    return pd.DataFrame(rows).set_index("metric")


def strip(rows: Sequence[Samples], *, columns: int = 10, zoom: int = 2) -> Image.Image:
    """Draws one labelled row per sampling; equal seeds give a column the same starting noise.

    Args:
        rows: Samples of images of one size.
        columns: Images per row: the first ones of each set of samples.
        zoom: Side of a drawn pixel.

    Raises:
        UserError: If there are no rows, or their images differ in size.
    """
    sizes = {samples.pixels.shape[1:] for samples in rows}
    if len(sizes) != 1:
        raise UserError(
            f"a strip of {len(rows)} sets of samples with {len(sizes)} image sizes",
            expected="one or more sets of samples with images of one size",
        )
    labels = [f"{samples.model}, {samples.nfe:g} NFE" for samples in rows]
    font = ImageFont.load_default(14)
    left = 16 + int(max(font.getlength(label) for label in labels))
    pictures = [_row(samples, columns, zoom) for samples in rows]
    pitch = pictures[0].height + zoom
    width = left + max(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width, pitch * len(rows) - zoom), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (label, picture) in enumerate(zip(labels, pictures, strict=True)):
        draw.text((8, i * pitch + picture.height // 2), label, "black", font, anchor="lm")
        sheet.paste(picture, (left, i * pitch))
    return sheet


def _row(samples: Samples, columns: int, zoom: int) -> Image.Image:
    shown = torch.from_numpy(samples.pixels[:columns])
    picture = Image.fromarray(image_grid(shown, len(shown)).numpy())
    size = (picture.width * zoom, picture.height * zoom)
    return picture.resize(size, Image.Resampling.NEAREST)


def results(folder: Path | str) -> pd.DataFrame:
    """Reads the scores of a results folder, one row per cell and score.

    Raises:
        UserError: If it holds no readable records.
    """
    records = read_results(Path(folder))
    rows = []
    for record in records:
        for score in record.scores:
            low, high = score.interval or (None, None)
            rows.append(
                {"label": record.label, "model": record.model, "nfe": record.nfe,
                 "seed": record.seed, "metric": score.title, "value": score.value,
                 "error": score.error, "low": low, "high": high, "images": score.count,
                 "fingerprint": score.fingerprint[:12]}
            )  # fmt: skip
    return pd.DataFrame(rows)
