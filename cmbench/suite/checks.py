"""What a suite asks, held against what its plan holds: refused before anything runs."""

from cmbench.core.errors import Pending, UserError
from cmbench.core.loader import create
from cmbench.datasets.base import Dataset
from cmbench.features.base import FeatureExtractor
from cmbench.suite.plan import Cell, Plan

__all__ = ["require_shape", "require_used"]

Shape = tuple[int, int, int]


def require_used(plan: Plan) -> None:
    """Refuses data sets, extractors and reference files that are unknown or that nothing uses.

    Raises:
        UserError: File, line, key.
    """
    suite, source = plan.suite, plan.source
    create("dataset", suite.dataset, where=source.where(("dataset",)))
    if suite.reference.dataset is not None:
        place = source.where(("reference", "dataset"))
        create("dataset", suite.reference.dataset, where=place)
    listed: list[FeatureExtractor] = [
        create("features", spec, where=source.where(("features", i)))
        for i, spec in enumerate(suite.features)
    ]
    asked: list[FeatureExtractor] = [
        create("features", entry.features, where=source.where(("metrics", i, "features")))
        for i, entry in enumerate(suite.metrics)
        if entry.features is not None
    ]
    used = [extractor.spec() for extractor in asked]
    if len(asked) < len(suite.metrics):
        used.append(listed[0].spec())
    for i, extractor in enumerate(listed[1:], start=1):
        if extractor.spec() not in used:
            raise UserError(
                f"no metric uses the features '{extractor.name}'",
                where=source.where(("features", i)),
                expected=f"a metric as {{name: ..., features: {extractor.name}}}; metrics without "
                "`features` use the first",
            )
    _require_reference_used(plan, {spec["name"] for spec in used})


def _require_reference_used(plan: Plan, extractors: set[str]) -> None:
    reference, source = plan.suite.reference, plan.source
    for name in reference.files:
        if name not in extractors:
            raise UserError(
                f"no metric uses the features '{name}' of this file",
                where=source.where(("reference", "files", name)),
                expected=f"one of: {', '.join(sorted(extractors))}",
            )
    for key in ("count", "dataset"):
        if getattr(reference, key) is not None and extractors <= set(reference.files):
            raise UserError(
                f"reference.{key} is not used: every extractor has a file of statistics",
                where=source.where(("reference", key)),
                fix=f"leave {key} out",
            )


def require_shape(plan: Plan, cell: Cell, where: str) -> None:
    """Refuses a model whose images have another shape than the data set's.

    Raises:
        UserError: Naming both shapes.
    """
    made = _model_shape(cell)
    for key, spec in (
        ("dataset", plan.suite.dataset),
        ("reference.dataset", plan.suite.reference.dataset),
    ):
        held = _data_shape(plan, create("dataset", spec)) if spec is not None else None
        if made is not None and held is not None and made != held:
            raise UserError(
                f"model '{cell.card.full_name}' makes images of {_told(made)}, "
                f"the suite's {key} holds images of {_told(held)}",
                where=where,
                expected=f"a model of {_told(held)} images, or its own data set",
            )


def _model_shape(cell: Cell) -> Shape | None:
    model = cell.network.model if cell.network else None
    shape = getattr(model, "shape", None) or cell.card.card.shape
    return tuple(shape) if isinstance(shape, (tuple, list)) and len(shape) == 3 else None


def _data_shape(plan: Plan, dataset: Dataset) -> Shape | None:
    """The shape that a data set states, or that was seen; None where it isn't on this machine."""
    stated = dataset.stated_shape()
    if stated is not None:
        return stated
    if plan.suite.reference.files and plan.data.path(dataset) is None:
        return None  # its statistics stand for it: the images need not be here
    try:
        return plan.data.shape(dataset)
    except Pending:
        return None


def _told(shape: Shape) -> str:
    return "x".join(map(str, shape))
