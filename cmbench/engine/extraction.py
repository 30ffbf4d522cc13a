"""Feature jobs: an extractor maps the pixels of a shard, or of the reference data, to features."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.loader import create
from cmbench.datasets.base import Dataset
from cmbench.engine.context import JobContext, Tick
from cmbench.features.base import Pixels, Rows
from cmbench.metrics.base import Features
from cmbench.metrics.statistics.file import load_reference, reference_from_features, save_reference
from cmbench.store.jobs import Job
from cmbench.store.store import Address

__all__ = ["extract_features", "extract_reference"]


def extract_features(job: Job, context: JobContext, folder: Path, tick: Tick) -> None:
    """Writes the features of a shard, one array per layer."""
    source = context.store.folder(Address("sample", job.needs[0].key))
    pixels = np.load(source / "pixels.npy", allow_pickle=False)
    layers = _extract(lambda a, b: pixels[a:b], len(pixels), job, context, tick)
    for name, rows in layers.items():
        np.save(folder / f"{name}.npy", rows)


def _extract(
    read: Callable[[int, int], Any], count: int, job: Job, context: JobContext, tick: Tick
) -> Rows:
    size = 64 if context.device.type == "cpu" else 256

    def batches() -> Iterator[Pixels]:
        for first in range(0, count, size):
            last = min(first + size, count)
            yield read(first, last)
            tick(last, count)

    return context.extractor(job.spec["extractor"]).rows(batches(), context.device)


def extract_reference(job: Job, context: JobContext, folder: Path, tick: Tick) -> None:
    """Writes reference statistics: a shipped file, or the features of the data set."""
    if "file" in job.transport:
        shipped = load_reference(Path(job.transport["file"]))
        save_reference(replace(shipped, digest=job.address.key), folder / "reference.npz")
        return
    dataset: Dataset = create("dataset", job.transport["dataset"])
    path = job.transport["data_path"]
    images = dataset.open(Path(path) if path else None)
    count = min(len(images), job.spec["count"] or len(images))
    layers = _extract(lambda a, b: images.pixels(range(a, b)), count, job, context, tick)
    reference = reference_from_features(Features(layers), job.address.key)
    save_reference(reference, folder / "reference.npz")
