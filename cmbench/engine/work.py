"""The function of each kind of job: it writes a pure function of the specification to a folder."""

import json
from collections.abc import Callable
from pathlib import Path

from torch import nn

from cmbench.core.errors import CmbenchError
from cmbench.core.files import write_json
from cmbench.core.loader import create
from cmbench.datasets.base import Dataset
from cmbench.engine.context import JobContext, Tick
from cmbench.engine.extraction import extract_features, extract_reference
from cmbench.engine.sampling import sample, sample_prefix
from cmbench.metrics.base import Metric
from cmbench.store.jobs import Job
from cmbench.train.loop import train
from cmbench.train.recipe import Recipe

__all__ = ["WORK"]


def _train(job: Job, context: JobContext, folder: Path, tick: Tick) -> None:
    recipe = Recipe.model_validate(job.transport["recipe"])
    dataset: Dataset = create("dataset", recipe.dataset)
    path = job.transport["data_path"]
    images = dataset.open(Path(path) if path else None)
    result = train(
        recipe,
        dataset_images=images,
        teacher=_parent(job, context, "teacher"),
        start=_parent(job, context, "start"),
        folder=context.store.work_folder(job.address),
        device=context.device,
        progress=lambda state: tick(state.images, recipe.images, f"loss {state.loss:.4f}"),
    )
    (folder / "weights.safetensors").write_bytes(result.weights.read_bytes())
    (folder / "log.json").write_bytes(result.log.read_bytes())


def _parent(job: Job, context: JobContext, role: str) -> nn.Module | None:
    network = job.spec.get(role)
    if not network:
        return None
    return context.module(network["model"], network["weights"], job.transport[f"{role}_file"])


def _score(job: Job, context: JobContext, folder: Path, tick: Tick) -> None:
    metric: Metric = create("metric", job.spec["metric"])
    key = job.spec["reference"]
    reference = context.reference(key) if key else None
    scores = metric.scores(context.features(job.spec["features"]), reference)
    rows = {
        name: {
            "value": s.value,
            "error": s.error,
            "interval": list(s.interval) if s.interval else None,
            "count": s.count,
            "details": s.details,
        }
        for name, s in scores.items()
    }
    try:
        write_json(folder / "scores.json", rows)
    except ValueError:
        shown = json.dumps({n: r["value"] for n, r in rows.items()})
        raise CmbenchError(
            f"metric '{metric.name}' gave a number that is not finite: {shown}"
        ) from None
    tick(1, 1)


WORK: dict[str, Callable[[Job, JobContext, Path, Tick], None]] = {
    "train": _train,
    "prefix": sample_prefix,
    "sample": sample,
    "features": extract_features,
    "reference": extract_reference,
    "score": _score,
}
"""Kind of job to the function that does it."""
