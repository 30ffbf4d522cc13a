"""What a suite asks, held against what its plan holds: refused before anything runs."""

from collections.abc import Iterator
from typing import Any

from cmbench.core.errors import Pending, UserError, brief, nearest
from cmbench.core.loader import create, load
from cmbench.datasets.base import Dataset
from cmbench.features.base import FeatureExtractor
from cmbench.stats.findings import Cells
from cmbench.suite.plan import Cell, Plan

__all__ = ["require_distinct", "require_findings", "require_shape", "require_used"]

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


def require_distinct(plan: Plan) -> None:
    """Refuses two cells that are the same work, or that a table could not tell apart.

    Raises:
        UserError: Naming the label.
    """
    where = plan.source.where(("runs",))
    seen: dict[str, Cell] = {}
    named: dict[tuple[Any, ...], Cell] = {}
    for cell in plan.cells:
        if cell.id in seen:
            raise UserError(
                f"two cells are the same work: '{seen[cell.id].label}' and '{cell.label}' "
                f"({_sampler(cell)})",
                where=where,
                fix="remove one of the runs, or a repeated nfe",
            )
        seen[cell.id] = cell
        nfe = cell.sampler.nfe() if cell.sampler is not None else None
        other = named.setdefault((cell.label, nfe, cell.seed), cell)
        if other is not cell and nfe is not None and cell.pending is None:
            raise UserError(
                f"two cells have the label '{cell.label}' at {nfe} evaluations "
                f"({_sampler(other)}, {_sampler(cell)}): no table could tell them apart",
                where=where,
                fix="give each run a label of its own; {sampler} and the keys of `train` are "
                "filled in",
            )


def _sampler(cell: Cell) -> str:
    if cell.sampler is None:
        return ""
    return brief(cell.sampler.spec()) if cell.sampler.model_fields_set else cell.sampler.name


def require_findings(plan: Plan) -> None:
    """Refuses claims about labels, evaluations or scores that no cell of the suite has.

    Raises:
        UserError: File, line, key, and the nearest.
    """
    scores = [name for entry in plan.suite.metrics for name in _outputs(entry.name)]
    for index, finding in enumerate(plan.suite.findings):
        if finding.score not in scores:
            near = nearest(finding.score, scores)
            raise UserError(
                f"no metric of the suite gives the score {brief(finding.score)}"
                + (f"; did you mean '{near}'?" if near else ""),
                where=plan.source.where(("findings", index, "score")),
                expected=f"one of: {', '.join(dict.fromkeys(scores))}",
            )
        for side in ("better", "worse"):
            place = plan.source.where(("findings", index, side))
            _require_cells(plan, getattr(finding, side), place)


def _outputs(metric: str) -> tuple[str, ...]:
    outputs: tuple[str, ...] = load("metric", metric).outputs
    return outputs


def _require_cells(plan: Plan, cells: Cells, where: str) -> None:
    if any(_is_open(cell) for cell in plan.cells):
        return  # labels of trainings that wait are not known yet
    labels = {cell.label for cell in plan.cells}
    for label in cells.label:
        if label not in labels:
            near = nearest(label, labels)
            raise UserError(
                f"no cell of the suite has the label {brief(label)}"
                + (f"; did you mean '{near}'?" if near else ""),
                where=where,
                expected=f"one of: {brief(sorted(labels))}",
            )
        spent = set(_evaluations(plan, label))
        absent = [nfe for nfe in cells.nfe or () if None not in spent and nfe not in spent]
        if absent:
            raise UserError(
                f"'{label}' has no cell at {absent[0]:g} evaluations",
                where=where,
                expected=f"one of: {', '.join(f'{n:g}' for n in sorted(n for n in spent if n))}",
            )


def _is_open(cell: Cell) -> bool:
    """Whether a waiting cell's label still holds a placeholder."""
    return cell.pending is not None and "{" in cell.label


def _evaluations(plan: Plan, label: str) -> Iterator[float | None]:
    for cell in plan.cells:
        if cell.label == label:
            yield cell.sampler.nfe() if cell.sampler is not None else None
