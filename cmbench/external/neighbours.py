"""Has the model copied its training set? Each sample beside the training images nearest to it.

Distances are Euclidean in an extractor's `pool` features, rounded to float16 on both sides as
references keep them, so that a copy is at 0. A sample is suspicious if its nearest training image
is nearer to it than that image is to any other training image: the rule of AuthPct (Alaa et al.,
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
"""Least side of a picture in the sheet, and height of the line under it, in pixels."""


@dataclass(frozen=True)
class Neighbour:
    """A sample and its nearest training images.

    Args:
        sample: Place of the sample in its container, from 0.
        nearest: Places of the training images in their data set, nearest first.
        distances: To each of them.
        own_gap: Distance of the nearest training image to its own nearest other one.
        levels: Root mean square difference of the pixels to the nearest, in grey levels.
    """

    sample: int
    nearest: list[int]
    distances: list[float]
    own_gap: float
    levels: float

    @property
    def ratio(self) -> float:
        """Below 1: nearer to the training image than any other training image is."""
        if self.own_gap > 0:
            return self.distances[0] / self.own_gap
        return 0.0 if self.distances[0] == 0 else float("inf")


@dataclass(frozen=True)
class NeighbourReport:
    """What was compared, how many samples are suspicious, and the most suspicious ones.

    Args:
        images: Samples compared.
        training: What they were compared with, in words.
        features: Extractor.
        suspicious: Samples whose ratio is below 1.
        identical: Samples equal to a training image to the last bit, among those shown.
        shown: The most suspicious samples, worst first.
    """

    images: int
    training: str
    features: str
    suspicious: int
    identical: int
    shown: list[Neighbour]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
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
        context: Store, where the data set's features are kept, and device.
        features: Extractor.
        show: Samples in the report and the sheet, the most suspicious ones.
        near: Training images beside each.
        data: Where the data set is.
        batch: Images at once.
        out: PNG to write: one row per sample, then its neighbours, with their distances.
        overwrite: Whether a file that is there may be replaced.
        tick: Progress.

    Raises:
        UserError: If the reference has no images, the samples are of another size or broken, or a
            file `out` is there.
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
    found = _neighbours(rows, target, extractor, context, batch, near)
    order = sorted(range(len(found)), key=lambda i: (found[i].ratio, found[i].distances[0], i))
    chosen = [found[i] for i in order[:show]]
    samples = _chosen_pixels(images, target, [n.sample for n in chosen], batch)
    training = target.dataset.open(data)
    sets = [training.pixels(n.nearest) for n in chosen]
    chosen = [_with_levels(n, samples[n.sample], s[0]) for n, s in zip(chosen, sets, strict=True)]
    if out is not None:
        rows_shown = [(n, samples[n.sample], s) for n, s in zip(chosen, sets, strict=True)]
        with atomic_file(out) as file:
            _sheet(rows_shown).save(file, format=form)
    return NeighbourReport(
        len(rows), target.words, extractor.name, sum(n.ratio < 1 for n in found),
        sum(n.levels == 0 for n in chosen), chosen,
    )  # fmt: skip


def _picture_format(out: Path, *, overwrite: bool) -> str:
    """The format that a picture's name asks for; refused before anything is computed."""
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
    images: Path, target: DataTarget, chosen: Sequence[int], batch: int
) -> dict[int, NDArray[np.uint8]]:
    """The pixels of a few samples, from a second pass over the container."""
    wanted, found, first = set(chosen), {}, 0
    for block in ImageStream(images, target.shape[1:], target.shape[0]).batches(batch):
        for i in wanted & set(range(first, first + len(block))):
            found[i] = block[i - first].copy()
        first += len(block)
    return found


def _with_levels(
    neighbour: Neighbour, sample: NDArray[np.uint8], nearest: NDArray[np.uint8]
) -> Neighbour:
    gap = sample.astype(np.float64) - nearest
    told = asdict(neighbour) | {"levels": float(np.sqrt((gap**2).mean()))}
    return Neighbour(**told)


def _sheet(
    rows: Sequence[tuple[Neighbour, NDArray[np.uint8], NDArray[np.uint8]]],
) -> Image.Image:
    """A row a sample: the sample, a gap, its neighbours; place and distance under each."""
    height, width = rows[0][1].shape[1:]
    scale = max(1, -(-_SIDE // max(height, width)))
    cell = (width * scale + 4, height * scale + _LINE + 4)
    columns = 1 + max(len(pixels) for _, _, pixels in rows)
    sheet = Image.new("RGB", (columns * cell[0] + 12, len(rows) * cell[1]), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for line, (neighbour, sample, pixels) in enumerate(rows):
        told = [f"#{neighbour.sample}"] + [f"{d:.3g}" for d in neighbour.distances]
        for column, picture in enumerate([sample, *pixels]):
            left = column * cell[0] + (12 if column else 0) + 2
            top = line * cell[1] + 2
            sheet.paste(_picture(picture, scale), (left, top))
            colour = "firebrick" if column == 1 and neighbour.ratio < 1 else "black"
            place = (left, top + height * scale)
            draw.text(place, told[column], fill=colour, font=font)
    return sheet


def _picture(pixels: NDArray[np.uint8], scale: int) -> Image.Image:
    colour = torch.from_numpy(pixels).expand(3, -1, -1).permute(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(colour.numpy()))
    size = (image.width * scale, image.height * scale)
    return image.resize(size, Image.Resampling.NEAREST)
