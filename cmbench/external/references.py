"""References of images from other programs: a data set, or a file of statistics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.core.loader import available, create
from cmbench.core.paths import user_path
from cmbench.core.text import printable
from cmbench.core.yaml_source import parse_value
from cmbench.datasets.base import Dataset
from cmbench.engine.context import JobContext, Tick
from cmbench.engine.job import run_job
from cmbench.external.containers import ImageStream, ignored_files
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Features, Reference
from cmbench.metrics.statistics.formats import Statistics, open_statistics
from cmbench.store.jobs import Job
from cmbench.suite.score_jobs import reference_job

__all__ = [
    "DataTarget",
    "FileTarget",
    "dataset_of",
    "features_of",
    "find_target",
    "is_statistics",
]


@dataclass
class DataTarget:
    """A data set as the reference; its features are the output of a job, cached in the store."""

    dataset: Dataset
    path: Path | None
    count: int
    fingerprint: str
    shape: tuple[int, int, int]
    ignored: int = 0

    @property
    def words(self) -> str:
        """Description of the reference."""
        others = f" ({ignored_files(self.ignored)})" if self.ignored else ""
        return f"data set {self.dataset.spec()}, {self.count} images{others}"

    def reference(
        self, extractor: FeatureExtractor, context: JobContext, batch: int
    ) -> tuple[Reference, dict[str, Any]]:
        """Returns the reference in these features, and the specification of its job."""
        job = self._job(extractor)
        with context.store.lease(job.address):
            if not context.store.has(job.address):
                run_job(job, context, lambda done, total, note="": None)
        return context.reference(job.address.key), job.spec

    def _job(self, extractor: FeatureExtractor) -> Job:
        weights = extractor.weights_digest()
        return reference_job(self.dataset, self.path, self.fingerprint, extractor, weights)


@dataclass
class FileTarget:
    """A file of statistics as the reference; features of ADM's images are computed on demand."""

    path: Path
    held: Statistics

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape (C, H, W) of the images inside the file, if it holds images."""
        shape = self.held.images
        if shape is None or len(shape) != 4 or shape[3] not in (1, 3):
            return None
        return shape[3], shape[1], shape[2]

    @property
    def words(self) -> str:
        """Description of the reference."""
        digest = self.held.reference.digest[:12]
        return f"{printable(str(self.path))} ({self.held.form}, SHA-256 {digest})"

    def reference(
        self, extractor: FeatureExtractor, context: JobContext, batch: int
    ) -> tuple[Reference, dict[str, Any]]:
        """Returns the reference, and its description in a protocol."""
        made_of = self.held.made_of
        for key, wanted in (
            ("extractor", extractor.spec()),
            ("weights", extractor.weights_digest()),
        ):
            if made_of and made_of.get(key) != wanted:
                raise UserError(
                    f"{self.path} was made with another {key} ({made_of.get(key)})",
                    expected=str(wanted),
                )
        reference = self.held.reference
        if self.held.images and reference.features is None:
            reference = self._with_images(extractor, context, batch)
        return reference, {"file": reference.digest, "format": self.held.form, **made_of}

    def _with_images(
        self, extractor: FeatureExtractor, context: JobContext, batch: int
    ) -> Reference:
        """Adds features of the images inside the file, which ADM's precision and recall use."""
        stream = ImageStream(self.path)
        built = {extractor.name: context.extractor(extractor.spec())}
        parts = features_of(stream, built, context, batch, False, None)[extractor.name]
        features = Features({k: np.concatenate(v) for k, v in parts.items()})
        reference = self.held.reference
        return Reference(reference.digest, features, dict(reference.moments))


def dataset_of(text: str) -> Dataset:
    """Parses a data set: `digits`, `cifar10:split=test`, or a path of images.

    A data set's name takes precedence over a file or folder; `./digits` is the folder.

    Raises:
        UserError: For an unknown name or parameter, or a path that does not exist.
    """
    name, _, parameters = text.partition(":")
    if name not in {item.name for item in available("dataset")}:
        if user_path(text).exists():
            images: Dataset = create("dataset", {"name": "images", "path": text})
            return images
        if "/" in text or text.startswith(("~", ".")):
            raise UserError(f"{text} does not exist", expected="a data set, or a path of images")
    pairs = [p.partition("=") for p in parameters.split(",") if p]
    fields = {key: parse_value(value, text) for key, _, value in pairs}
    dataset: Dataset = create("dataset", {"name": name, **fields})
    return dataset


def is_statistics(reference: str | Path) -> bool:
    """Tests by its suffix whether a reference is a file of statistics, not a data set."""
    return Path(reference).suffix.lower() in (".npz", ".pkl", ".pickle")


def find_target(reference: str | Path, data: Path | None) -> DataTarget | FileTarget:
    """Finds a reference by its name: a file of statistics by its suffix, else a data set.

    Raises:
        UserError: For an unknown data set, or a file that is not one of statistics.
        Pending: If the data is not on this machine.
    """
    if is_statistics(reference):
        return FileTarget(Path(reference), open_statistics(Path(reference)))
    dataset = dataset_of(str(reference))
    images = dataset.open(data)
    ignored: int = getattr(images, "ignored", 0)
    return DataTarget(dataset, data, len(images), images.fingerprint(), images.shape, ignored)


def features_of(
    stream: ImageStream,
    built: dict[str, Any],
    context: JobContext,
    batch: int,
    skip_bad: bool,
    tick: Tick | None,
) -> dict[str, dict[str, list[NDArray[np.float32]]]]:
    """Returns feature rows by extractor and layer, one block per batch, up to a bad image.

    Raises:
        CmbenchError: For a feature that is not finite, naming the image.
    """
    parts: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
    done = 0
    for block in stream.batches(batch):
        if stream.bad and not skip_bad:
            continue  # they will be refused: the rest is only read to list bad images
        for name, extractor in built.items():
            for layer, rows in extractor.features(block, context.device, done).items():
                parts.setdefault(name, {}).setdefault(layer, []).append(rows)
        done += len(block)
        if tick is not None:
            tick(done, 0)
    return parts
