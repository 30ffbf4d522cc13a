"""The jobs behind a cell's numbers: features of its shards, reference statistics, scores."""

from pathlib import Path
from typing import Any

from cmbench.core.digests import file_sha256
from cmbench.core.errors import Pending, UserError, placing
from cmbench.core.loader import create
from cmbench.datasets.base import Dataset
from cmbench.features.base import FeatureExtractor
from cmbench.metrics.base import Metric
from cmbench.metrics.statistics.file import read_made_of
from cmbench.store.jobs import Cost, Job, make_job
from cmbench.store.store import Address
from cmbench.suite.networks import beside
from cmbench.suite.plan import Cell, Plan, PlannedScore
from cmbench.suite.spec import MetricEntry

__all__ = ["Scoring", "protocol", "reference_job"]


def reference_job(
    dataset: Dataset,
    path: Path | None,
    fingerprint: str,
    extractor: FeatureExtractor,
    weights: str,
    *,
    count: int | None = None,
    cost: Cost | None = None,
) -> Job:
    """The job that makes reference features of a data set; suites and `score` share its output.

    Args:
        dataset: The data set.
        path: Where it is, if not at its usual place.
        fingerprint: SHA-256 of its data.
        extractor: The feature space.
        weights: SHA-256 of the extractor's weights.
        count: The first so many images; None for all.
        cost: What it is expected to spend.
    """
    return make_job(
        "reference",
        {
            "data": fingerprint,
            "extractor": extractor.spec(),
            "weights": weights,
            "count": count,
        },
        title=f"reference {dataset.name} in {extractor.name}",
        transport={
            "dataset": dataset.model_dump(mode="json") | {"name": dataset.name},
            "data_path": str(path) if path else None,
        },
        cost=cost,
    )


def protocol(
    metric: Metric,
    extractor: FeatureExtractor,
    weights: str | None,
    reference: dict[str, Any] | None,
    *,
    images: int,
    quantisation: str,
) -> dict[str, Any]:
    """What the fingerprint of a number is the hash of.

    Args:
        metric: The metric with its parameters.
        extractor: The feature space.
        weights: SHA-256 of the extractor's weights; None while they are not here.
        reference: Specification of the reference; None for a metric without one.
        images: Images scored.
        quantisation: How images became bytes, or "as given".
    """
    return {
        "metric": metric.spec(),
        "extractor": extractor.spec(),
        "weights": weights,
        "reference": reference,
        "images": images,
        "quantisation": quantisation,
    }


class Scoring:
    """Adds the feature, reference and score jobs of cells; resolves each extractor once.

    Raises:
        UserError: For a metric that can't be computed here as asked: file, line, key.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.entries = [self._resolve(i, entry) for i, entry in enumerate(plan.suite.metrics)]

    def scored(self, cell: Cell) -> Cell:
        """The cell with its planned scores, their jobs added to the plan."""
        scores = tuple(self._score(cell, *entry) for entry in self.entries)
        return Cell(**{**cell.__dict__, "scores": scores})

    def _resolve(
        self, index: int, entry: MetricEntry
    ) -> tuple[Metric, FeatureExtractor, str | Pending, Job | None]:
        suite, source = self.plan.suite, self.plan.source
        where = source.where(("metrics", index))
        metric: Metric = create("metric", {"name": entry.name, **entry.parameters}, where=where)
        if suite.images.count < metric.fewest():
            raise UserError(
                f"metric '{metric.name}' needs at least {metric.fewest()} images per cell, "
                f"images.count is {suite.images.count}",
                where=where,
                expected="a greater images.count, or other parameters of the metric",
            )
        extractor: FeatureExtractor = create(
            "features", entry.features or suite.features[0], where=where
        )
        missing = [layer for layer in metric.layers if layer not in extractor.layers]
        if missing:
            raise UserError(
                f"metric '{metric.name}' reads layer '{missing[0]}', which '{extractor.name}' "
                "does not give",
                where=where,
                expected=f"an extractor with it; {extractor.name} has: "
                + ", ".join(extractor.layers),
            )
        try:
            with placing(where):
                weights = extractor.weights_digest()
                reference = self._reference(extractor, weights) if metric.needs_reference else None
                self._require_reference_count(metric, extractor, where)
        except Pending as reason:
            self.plan.waiting[extractor.name] = reason
            return metric, extractor, reason, None
        return metric, extractor, weights, reference

    def _require_reference_count(
        self, metric: Metric, extractor: FeatureExtractor, where: str
    ) -> None:
        suite, entry = self.plan.suite, self.plan.suite.reference
        if not metric.needs_reference or extractor.name in entry.files:
            return
        there = self.plan.data.count(create("dataset", entry.dataset or suite.dataset))
        if entry.count is not None and entry.count > there:
            raise UserError(
                f"reference.count is {entry.count:,}, the data set has {there:,} images",
                where=self.plan.source.where(("reference", "count")),
                expected=f"at most {there}, or no count for all of them",
            )
        if (entry.count or there) < metric.fewest_reference():
            raise UserError(
                f"metric '{metric.name}' needs at least {metric.fewest_reference()} reference "
                f"images, there are {entry.count or there}",
                where=where,
            )

    def _reference(self, extractor: FeatureExtractor, weights: str) -> Job:
        suite, entry = self.plan.suite, self.plan.suite.reference
        if extractor.name in entry.files:
            return self._shipped_reference(extractor, weights, entry.files[extractor.name])
        where = self.plan.source.where(("reference", "dataset") if entry.dataset else ("dataset",))
        dataset: Dataset = create("dataset", entry.dataset or suite.dataset, where=where)
        fingerprint = self.plan.data.fingerprint(dataset)
        self.plan.fingerprints[dataset.name] = fingerprint
        count = entry.count or self.plan.data.count(dataset)
        job = reference_job(
            dataset,
            self.plan.data.path(dataset),
            fingerprint,
            extractor,
            weights,
            count=entry.count,
            cost=Cost(extractions=count, network=extractor.name),
        )
        self.plan.add(job)
        return job

    def _shipped_reference(self, extractor: FeatureExtractor, weights: str, name: str) -> Job:
        where = self.plan.source.where(("reference", "files", extractor.name))
        path = beside(self.plan.source, name)
        if not path.is_file():
            raise UserError(f"statistics file {path} does not exist", where=where)
        with placing(where):
            made_of = read_made_of(path)
        dataset = made_of.get("dataset")
        if not isinstance(dataset, dict) or "name" not in dataset or "data" not in made_of:
            raise UserError(
                f"statistics file {path} does not say of which data set it was made",
                where=where,
                expected="a file of `cmbench stats build`",
            )
        for key, wanted in (("extractor", extractor.spec()), ("weights", weights)):
            if made_of.get(key) != wanted:
                raise UserError(
                    f"statistics file {path} was made with another {key} ({made_of.get(key)})",
                    where=where,
                    expected=str(wanted),
                )
        self.plan.fingerprints[dataset["name"]] = made_of["data"]
        job = make_job(
            "reference",
            {**made_of, "file": file_sha256(path)},
            title=f"reference {dataset['name']} in {extractor.name} (shipped)",
            transport={"file": str(path)},
        )
        self.plan.add(job)
        return job

    def _score(
        self,
        cell: Cell,
        metric: Metric,
        extractor: FeatureExtractor,
        weights: str | Pending,
        reference: Job | None,
    ) -> PlannedScore:
        hashed = self._protocol(metric, extractor, weights, reference)
        if isinstance(weights, Pending):
            return PlannedScore(metric, extractor, None, hashed, weights)
        features = tuple(
            self.plan.add(self._features(shard, extractor, weights)) for shard in cell.shards
        )
        spec = {
            "metric": metric.spec(),
            "features": [a.key for a in features],
            "reference": reference.address.key if reference else None,
            **({"revision": metric.version()} if metric.version() > 1 else {}),
        }
        needs = (*features, *((reference.address,) if reference else ()))
        job = make_job("score", spec, needs=needs, title=f"score {metric.name} {cell.label}")
        return PlannedScore(metric, extractor, self.plan.add(job), hashed)

    def _features(self, shard: Address, extractor: FeatureExtractor, weights: str) -> Job:
        size = int(self.plan.jobs[shard].spec["count"])
        width = sum(extractor.layers.values())
        return make_job(
            "features",
            {"extractor": extractor.spec(), "weights": weights, "pixels": shard.key},
            needs=(shard,),
            title=f"features {extractor.name} of {shard.key[:8]}",
            cost=Cost(extractions=size, network=extractor.name, bytes=size * width * 4),
        )

    def _protocol(
        self,
        metric: Metric,
        extractor: FeatureExtractor,
        weights: str | Pending,
        reference: Job | None,
    ) -> dict[str, Any]:
        return protocol(
            metric,
            extractor,
            None if isinstance(weights, Pending) else weights,
            reference.spec if reference else None,
            images=self.plan.suite.images.count,
            quantisation=self.plan.suite.quantisation,
        )
