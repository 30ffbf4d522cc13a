"""Builds reference statistics of a data set or of image files, or converts a statistics file."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmbench.core.digests import file_sha256
from cmbench.core.errors import CmbenchError, UserError
from cmbench.core.loader import create
from cmbench.datasets.base import ImageSet
from cmbench.engine.context import JobContext, Tick
from cmbench.external.containers import images_inside
from cmbench.external.references import dataset_of
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Features, Reference
from cmbench.metrics.frechet.moments import MomentSum
from cmbench.metrics.statistics.formats import open_statistics, save_statistics, statistics_path
from cmbench.metrics.statistics.frozen_graph import TensorFlowInception

__all__ = ["Built", "Converted", "build_statistics", "convert_statistics"]

_BLOCK = 2048
_KEPT = {"cmbench", "compact", "score-sde"}
Extract = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Built:
    """Summary of written statistics: images, widths of the layers, origin, ignored files."""

    path: Path
    count: int
    layers: dict[str, int]
    made_of: dict[str, Any]
    ignored: int = 0


def build_statistics(
    dataset: str,
    out: Path,
    context: JobContext,
    *,
    features: str | dict[str, Any] = "inception",
    form: str = "cmbench",
    data: Path | None = None,
    count: int | None = None,
    seed: int = 0,
    images: int = 10_000,
    keep: int = 2000,
    batch: int = 64,
    backend: Literal["torch", "tensorflow"] = "torch",
    graph: Path | None = None,
    python: str | None = None,
    tick: Tick | None = None,
    overwrite: bool = False,
) -> Built:
    """Computes and writes statistics of a data set, or of a folder or file of images.

    Args:
        dataset: A data set's name (`cifar10:split=test`), or a path of images.
        out: The file.
        context: Device, and the store.
        features: The extractor; with TensorFlow always the graph's own layers.
        form: A format of `cmbench.metrics.statistics.formats`.
        data: Path of the data set.
        count: Size of a subset, drawn without replacement by `seed`; None: all images.
        seed: Seed of the draws, kept in `made_of`.
        images: Number of images, drawn by `seed`, that the `adm` format stores.
        keep: Number of feature rows that the `compact` format stores.
        batch: Images per batch.
        backend: torch, or the frozen graph of 2015 under TensorFlow.
        graph: The frozen graph's file.
        python: A Python that has TensorFlow.
        tick: Progress callback.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UserError: For an unknown name, bad images, fewer than 2 of them, or an existing file.
        Pending: If data, weights, the graph or TensorFlow are not on this machine.
    """
    statistics_path(out, form, overwrite=overwrite)
    data_set = dataset_of(dataset)
    source = data_set.open(data)
    order = _drawn(len(source), count, seed)
    extract: Extract
    with ExitStack() as stack:
        if backend == "tensorflow":
            net = stack.enter_context(TensorFlowInception(graph, python))
            origin = {"name": "inception", "backend": "tensorflow"}
            weights, extract = file_sha256(net.graph), net.__call__
        else:
            extractor: FeatureExtractor = create("features", features)
            origin, weights = extractor.spec(), extractor.weights_digest()
            extract = _Torch(context, origin)
        rows = _Rows(keep_rows=form in _KEPT)
        for done, block in _blocks(source, order, batch):
            rows.add(extract(block))
            if tick is not None:
                tick(done, len(order))
    made_of = {
        "dataset": data_set.spec(), "data": source.fingerprint(), "extractor": origin,
        "weights": weights, "count": len(order),
    } | ({"seed": seed} if len(order) < len(source) else {})  # fmt: skip
    reference = rows.reference()
    shown = _shown(source, order, images, seed) if form == "adm" else None
    written = save_statistics(out, reference, form, images=shown, made_of=made_of, keep=keep)
    widths = {name: len(m.mean) for name, m in reference.moments.items()}
    return Built(written, len(order), widths, made_of, getattr(source, "ignored", 0))


@dataclass(frozen=True)
class Converted:
    """Summary of a conversion.

    Args:
        path: The file.
        form: The format of the source.
        layers: Layers whose moments the source has.
        lost: Whether the source has features that the new file lacks.
    """

    path: Path
    form: str
    layers: list[str]
    lost: bool


def convert_statistics(
    source: Path, out: Path, form: str, *, count: int = 0, overwrite: bool = False
) -> Converted:
    """Writes a statistics file in another evaluator's format.

    Args:
        source: Statistics in any known format.
        out: The file; `.npz` is appended if it ends neither in .npz nor in .pkl.
        form: The format to write.
        count: Number of images, if the source does not state it; 0: unknown.
        overwrite: Whether an existing file may be replaced.

    Raises:
        UserError: For an unreadable source, an existing file, or the source itself.
    """
    target = statistics_path(out, form, overwrite=True)
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(
            f"{target} is the file that is converted", fix="give the new file another name"
        )
    statistics_path(out, form, overwrite=overwrite)
    statistics = open_statistics(source, count=count)
    images = images_inside(source) if statistics.images and form == "adm" else None
    written = save_statistics(
        out, statistics.reference, form, images=images, made_of=statistics.made_of
    )
    lost = statistics.reference.features is not None and form not in _KEPT
    return Converted(written, statistics.form, list(statistics.reference.moments), lost)


def _drawn(total: int, count: int | None, seed: int) -> NDArray[np.int64]:
    if count is None or count == total:
        return np.arange(total)
    if not 2 <= count <= total:
        raise UserError(f"--count {count}: the data set has {total} images", expected="2 or more")
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def _shown(
    source: ImageSet, order: NDArray[np.int64], images: int, seed: int
) -> NDArray[np.uint8]:
    indices = order[_drawn(len(order), min(images, len(order)), seed)]
    return source.pixels(indices).transpose(0, 2, 3, 1)


def _blocks(
    source: ImageSet, order: NDArray[np.int64], batch: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for first in range(0, len(order), batch):
        indices = order[first : first + batch]
        yield first + len(indices), source.pixels(indices)


class _Torch:
    def __init__(self, context: JobContext, spec: dict[str, Any]) -> None:
        self.context, self.net = context, context.extractor(spec)

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        return self.net.features(pixels, self.context.device)


@dataclass
class _Rows:
    """Accumulates moments of the wide layers in blocks; keeps rows only for formats with rows."""

    keep_rows: bool
    sums: dict[str, MomentSum] = field(default_factory=dict)
    held: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    waiting: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)
    seen: int = 0

    def add(self, layers: dict[str, NDArray[np.float32]]) -> None:
        """Adds a batch."""
        size = len(next(iter(layers.values())))
        for name, rows in layers.items():
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise CmbenchError(f"feature '{name}' of image {self.seen + bad[0]} is not finite")
            if self.keep_rows:
                self.held.setdefault(name, []).append(rows)
            if name != "logits":
                self.waiting.setdefault(name, []).append(rows)
                self._sum(name, least=_BLOCK)
        self.seen += size

    def reference(self) -> Reference:
        """Returns the moments of all rows, and the rows if they were kept."""
        for name in self.waiting:
            self._sum(name, least=1)
        moments = {name: total.moments() for name, total in self.sums.items()}
        features = Features({k: np.concatenate(v) for k, v in self.held.items() if k != "logits"})
        return Reference("", features if self.keep_rows else None, moments)

    def _sum(self, name: str, *, least: int) -> None:
        """Adds the waiting rows of a layer once there are `least`: small products are slow."""
        rows = self.waiting[name]
        if sum(map(len, rows)) < least:
            return
        part = MomentSum.of(np.concatenate(rows))
        self.sums[name] = self.sums[name].merge(part) if name in self.sums else part
        self.waiting[name] = []
