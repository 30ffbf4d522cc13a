"""Finds near-copies of training images: the nearest training images of each sample.

Distances are Euclidean in an extractor's `pool` features, rounded to float16 on both sides, the
precision of references, so that a copy has distance 0. A sample is suspicious if its nearest
training image is nearer to it than to any other training image: the rule of AuthPct (Alaa et al.,
2022, https://arxiv.org/abs/2102.08921). Samples are ordered by the ratio of the two distances.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file, new_file
from cmbench.core.loader import create
from cmbench.engine.context import JobContext, Tick
from cmbench.external.containers import ImageStream
from cmbench.external.references import DataTarget, features_of, find_target
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.neighbours.search import radii_of, ranked

__all__ = ["Neighbour", "NeighbourReport", "nearest_training_images"]

_SIDE, _LINE = 64, 12
"""Minimum side of an image in the sheet, and height of the line under it, in pixels."""


@dataclass(frozen=True)
class Neighbour:
    """A sample and its nearest training images.

    Args:
        sample: Index of the sample in its container, from 0.
        nearest: Indices of the training images in their data set, nearest first.
        distances: Distances to them.
        own_gap: Distance of the nearest training image to its own nearest neighbour.
        levels: Root mean square difference of the pixels to the nearest, in grey levels.
    """

    sample: int
    nearest: list[int]
    distances: list[float]
    own_gap: float
    levels: float

    @property
    def ratio(self) -> float:
        """Distance over `own_gap`; below 1, no other training image is as near as the sample."""
        if self.own_gap > 0:
            return self.distances[0] / self.own_gap
        return 0.0 if self.distances[0] == 0 else float("inf")


@dataclass(frozen=True)
class NeighbourReport:
    """The number of suspicious samples, and the most suspicious ones.

    Args:
        images: Number of samples compared.
        training: Description of the training set.
        features: Name of the extractor.
        suspicious: Number of samples whose ratio is below 1.
        identical: Number of exact copies of a training image among those shown.
        shown: The most suspicious samples, worst first.
    """

    images: int
    training: str
    features: str
    suspicious: int
    identical: int
    shown: list[Neighbour]

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as a dictionary for JSON."""
        rows = [{**asdict(n), "ratio": n.ratio if n.ratio != float("inf") else None}
                for n in self.shown]  # fmt: skip
        return {**asdict(self), "shown": rows}


def nearest_training_images(
    images: Path,
    reference: str,
    context: JobContext,
    *,
    features: str | dict[str, Any] = "efficientnet_lite0",
    show: int = 16,
    near: int = 3,
    data: Path | None = None,
    batch: int = 64,
    out: Path | None = None,
    overwrite: bool = False,
    tick: Tick | None = None,
) -> NeighbourReport:
    """Compares the images of a folder, .zip, .npz or .npy with a training set.

    Args:
        images: The container.
        reference: A data set; a file of statistics has no images.
        context: The device, and the store, which caches the data set's features.
        features: Extractor.
        show: Number of samples in the report and the sheet, the most suspicious ones.
        near: Number of training images per sample.
        data: Path of the data set.
        batch: Images per batch.
        out: PNG to write: one row per sample with its neighbours and their distances.
        overwrite: Whether an existing file may be replaced.
        tick: Progress callback.

    Raises:
        UserError: If the reference has no images, the samples have another size or are broken, or
            the file `out` exists.
        Pending: If data or weights are not on this machine.
    """
    form = _picture_format(out, overwrite=overwrite) if out is not None else ""
    target = find_target(reference, data)
    if not isinstance(target, DataTarget):
        raise UserError(
            f"{reference} is a file of statistics: it holds no training images",
            expected="a data set, such as cifar10:split=train, or a folder of images",
        )
    extractor: FeatureExtractor = create("features", features)
    stream = ImageStream(images, target.shape[1:], target.shape[0])
    built = {extractor.name: context.extractor(extractor.spec())}
    parts = features_of(stream, built, context, batch, False, tick)
    if stream.bad or not parts:
        named = stream.bad[0].name if stream.bad else str(images)
        raise UserError(f"{len(stream.bad)} of {stream.total} images can't be compared: {named}",
                        fix="cmbench score --skip-bad names them all")  # fmt: skip
    rows = np.concatenate(parts[extractor.name]["pool"])
    neighbours = _neighbours(rows, target, extractor, context, batch, near)
    order = sorted(
        range(len(neighbours)), key=lambda i: (neighbours[i].ratio, neighbours[i].distances[0], i)
    )
    worst = [neighbours[i] for i in order[:show]]
    samples = _chosen_pixels(images, target, [n.sample for n in worst], batch)
    training = target.dataset.open(data)
    sets = [training.pixels(n.nearest) for n in worst]
    worst = [_with_levels(n, samples[n.sample], s[0]) for n, s in zip(worst, sets, strict=True)]
    if out is not None:
        rows_shown = [(n, samples[n.sample], s) for n, s in zip(worst, sets, strict=True)]
        with atomic_file(out) as file:
            _sheet(rows_shown).save(file, format=form)
    return NeighbourReport(
        len(rows), target.words, extractor.name, sum(n.ratio < 1 for n in neighbours),
        sum(n.levels == 0 for n in worst), worst,
    )  # fmt: skip


def _picture_format(out: Path, *, overwrite: bool) -> str:
    """Returns the image format of a file name, before anything is computed."""
    new_file(out, overwrite=overwrite)
    form = Image.registered_extensions().get(out.suffix.lower())
    if form is None or form not in Image.SAVE:
        raise UserError(f"{out} names no format of pictures", expected="a name such as copies.png")
    return form


def _neighbours(
    rows: NDArray[np.float32],
    target: DataTarget,
    extractor: FeatureExtractor,
    context: JobContext,
    batch: int,
    near: int,
) -> list[Neighbour]:
    reference, _ = target.reference(extractor, context, batch)
    if reference.features is None:
        raise UserError(f"{target.words}: its features were not kept")
    known = reference.features.layers["pool"].astype(np.float32)
    if np.abs(known).max(initial=0.0) < 65504:
        rows = rows.astype(np.float16).astype(np.float32)
    gaps = np.sqrt(radii_of(reference.features, known, "pool", 1))
    squared, index = ranked(rows, known, min(near, len(known)))
    distances = np.sqrt(squared)
    return [
        Neighbour(i, index[i].tolist(), distances[i].tolist(), float(gaps[index[i, 0]]), -1.0)
        for i in range(len(rows))
    ]


def _chosen_pixels(
    images: Path, target: DataTarget, indices: Sequence[int], batch: int
) -> dict[int, NDArray[np.uint8]]:
    """Reads the pixels of a few samples in a second pass over the container."""
    wanted, pixels, first = set(indices), {}, 0
    for block in ImageStream(images, target.shape[1:], target.shape[0]).batches(batch):
        for i in wanted & set(range(first, first + len(block))):
            pixels[i] = block[i - first].copy()
        first += len(block)
    return pixels


def _with_levels(
    neighbour: Neighbour, sample: NDArray[np.uint8], nearest: NDArray[np.uint8]
) -> Neighbour:
    gap = sample.astype(np.float64) - nearest
    fields = asdict(neighbour) | {"levels": float(np.sqrt((gap**2).mean()))}
    return Neighbour(**fields)


def _sheet(
    rows: Sequence[tuple[Neighbour, NDArray[np.uint8], NDArray[np.uint8]]],
) -> Image.Image:
    """Draws one row per sample: the sample, a gap, its neighbours; index or distance below."""
    height, width = rows[0][1].shape[1:]
    scale = max(1, -(-_SIDE // max(height, width)))
    cell = (width * scale + 4, height * scale + _LINE + 4)
    columns = 1 + max(len(pixels) for _, _, pixels in rows)
    sheet = Image.new("RGB", (columns * cell[0] + 12, len(rows) * cell[1]), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for line, (neighbour, sample, pixels) in enumerate(rows):
        captions = [f"#{neighbour.sample}"] + [f"{d:.3g}" for d in neighbour.distances]
        for column, picture in enumerate([sample, *pixels]):
            left = column * cell[0] + (12 if column else 0) + 2
            top = line * cell[1] + 2
            sheet.paste(_picture(picture, scale), (left, top))
            colour = "firebrick" if column == 1 and neighbour.ratio < 1 else "black"
            place = (left, top + height * scale)
            draw.text(place, captions[column], fill=colour, font=font)
    return sheet


def _picture(pixels: NDArray[np.uint8], scale: int) -> Image.Image:
    colour = torch.from_numpy(pixels).expand(3, -1, -1).permute(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(colour.numpy()))
    size = (image.width * scale, image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST)
