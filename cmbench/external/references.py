"""What images made elsewhere are compared with: a data set, or a file of statistics."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.core.text import printable
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
    """A data set as the reference: its features are a job's output, kept in the store."""

    dataset: Dataset
    path: Path | None
    count: int
    fingerprint: str
    shape: tuple[int, int, int]
    ignored: int = 0

    @property
    def words(self) -> str:
        """What the images were compared with."""
        others = f" ({ignored_files(self.ignored)})" if self.ignored else ""
        return f"data set {self.dataset.spec()}, {self.count} images{others}"

    def reference(
        self, extractor: FeatureExtractor, context: JobContext, batch: int
    ) -> tuple[Reference, dict[str, Any]]:
        """The reference in these features and the specification it is made by."""
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
    """A file of statistics as the reference; features of ADM's images are made on demand."""

    path: Path
    held: Statistics

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Shape (C, H, W) of the images inside of the file, where it holds images."""
        held = self.held.images
        if held is None or len(held) != 4 or held[3] not in (1, 3):
            return None
        return held[3], held[1], held[2]

    @property
    def words(self) -> str:
        """What the images were compared with."""
        digest = self.held.reference.digest[:12]
        return f"{printable(str(self.path))} ({self.held.form}, SHA-256 {digest})"

    def reference(
        self, extractor: FeatureExtractor, context: JobContext, batch: int
    ) -> tuple[Reference, dict[str, Any]]:
        """The reference and what stands for it in a protocol."""
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
        """ADM's evaluator takes precision and recall against the images inside of the file."""
        stream = ImageStream(self.path)
        built = {extractor.name: context.extractor(extractor.spec())}
        parts = features_of(stream, built, context, batch, False, None)[extractor.name]
        features = Features({k: np.concatenate(v) for k, v in parts.items()})
        held = self.held.reference
        return Reference(held.digest, features, dict(held.moments))


def dataset_of(text: str) -> Dataset:
    """A data set as typed: `digits`, `cifar10:split=test`, or a path of images.

    Raises:
        UserError: For an unknown name or parameter.
    """
    if Path(text).exists():
        made: Dataset = create("dataset", {"name": "images", "path": text})
        return made
    name, _, parameters = text.partition(":")
    pairs = [p.partition("=") for p in parameters.split(",") if p]
    fields = {key: yaml.safe_load(value) for key, _, value in pairs}
    named: Dataset = create("dataset", {"name": name, **fields})
    return named


def is_statistics(reference: str | Path) -> bool:
    """Tells by its suffix whether a reference is a file of statistics, and not a data set."""
    return Path(reference).suffix.lower() in (".npz", ".pkl", ".pickle")


def find_target(reference: str | Path, data: Path | None) -> DataTarget | FileTarget:
    """The reference by its name: a file of statistics by its suffix, else a data set.

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
    """Rows of each layer of each extractor, a block a batch; stops at the first bad image.

    Raises:
        CmbenchError: For a feature that is not finite, naming the image.
    """
    parts: dict[str, dict[str, list[NDArray[np.float32]]]] = {}
    done = 0
    for block in stream.batches(batch):
        if stream.bad and not skip_bad:
            continue  # They will be refused: the rest is only read, to name and count.
        for name, extractor in built.items():
            for layer, rows in extractor.features(block, context.device, done).items():
                parts.setdefault(name, {}).setdefault(layer, []).append(rows)
        done += len(block)
        if tick is not None:
            tick(done, 0)
    return parts
