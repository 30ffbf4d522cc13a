"""What names a suite's cells: the values of its axes, labels made of them, and claims about both.

Two cells must differ in label, axes, number of evaluations or seed, or a table would show two rows
that nobody can tell apart; only trainings of one recipe from several seeds may share all four.
"""

import re
from typing import Any

from cmbench.cards.cards import PlacedCard
from cmbench.core.digests import canonical
from cmbench.core.errors import UserError, brief, nearest
from cmbench.samplers.base import Sampler
from cmbench.stats.findings import Cells
from cmbench.stats.rows import TRAINING_SEED
from cmbench.suite.axes import as_scalar
from cmbench.suite.plan import Cell, Plan
from cmbench.suite.spec import RunEntry
from cmbench.train.recipe import Recipe

__all__ = ["label_of", "refuse_unknown_claims", "refuse_unnamed"]

_LONGEST = 300
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def label_of(
    run: RunEntry,
    card: PlacedCard,
    axes: dict[str, Any],
    sampler: Sampler,
    recipe: Recipe | None,
    where: str,
) -> str:
    """Returns a cell's label: the run's own, placeholders filled in, or the card with its axes.

    Raises:
        UserError: For a placeholder that names nothing, or more than 300 characters.
    """
    text = _text(run, card, axes, sampler, recipe, where)
    if len(text) > _LONGEST:
        raise UserError(
            f"label {brief(text)} has {len(text)} characters",
            where=where,
            expected=f"at most {_LONGEST}",
        )
    return text


def _text(
    run: RunEntry,
    card: PlacedCard,
    axes: dict[str, Any],
    sampler: Sampler,
    recipe: Recipe | None,
    where: str,
) -> str:
    if run.label is not None:
        return _filled(run, axes, sampler, recipe, where)
    trained = {k: v for k, v in axes.items() if k in run.train and k != TRAINING_SEED}
    detail = ", ".join(str(v) for v in trained.values())
    text = f"{card.full_name} ({detail})" if detail else card.full_name
    return f"{text} {sampler.name}" if run.sampler and len(run.sampler) > 1 else text


def refuse_unnamed(plan: Plan) -> None:
    """Refuses cells that are the same work, and those that no row could tell apart.

    Raises:
        UserError: Naming the two cells.
    """
    ids: dict[str, Cell] = {}
    named: dict[str, Cell] = {}
    where = plan.source.where(("runs",))
    for cell in plan.cells:
        sampler = cell.sampler.name if cell.sampler else ""
        other = ids.setdefault(cell.id, cell)
        if other is not cell:
            raise UserError(
                f"two cells are the same work: '{other.label}' and '{cell.label}' ({sampler})",
                where=where,
                fix="remove one of the runs, or a repeated nfe",
            )
        other = named.setdefault(_name(cell), cell)
        if other is not cell and not _repeats(cell, other):
            raise UserError(
                f"two cells are called '{cell.label}' with the same axes, NFE and seed: "
                f"{other.card.full_name} and {cell.card.full_name} ({sampler})",
                where=where,
                expected="a label of its own for each, or recipes that differ in their seed alone",
                fix="label: ..., with placeholders such as {sampler.rho} for what differs",
            )


def refuse_unknown_claims(plan: Plan) -> None:
    """Refuses findings about labels, evaluations or scores that no cell of the suite has.

    Raises:
        UserError: With the nearest label.
    """
    outputs = sorted({n for cell in plan.cells for s in cell.scores for n in s.metric.outputs})
    for i, finding in enumerate(plan.suite.findings):
        for side in ("better", "worse"):
            _known(plan, getattr(finding, side), ("findings", i, side))
        if outputs and finding.score not in outputs:
            raise UserError(
                f"a finding is about score '{finding.score}', which no cell has",
                where=plan.source.where(("findings", i, "score")),
                expected="one of: " + ", ".join(outputs),
            )


def _known(plan: Plan, cells: Cells, place: tuple[str | int, ...]) -> None:
    labels = {cell.label for cell in plan.cells}
    for label in cells.label:
        if label not in labels:
            near = nearest(label, labels)
            raise UserError(
                f"a finding is about '{label}', which no run is called"
                + (f"; did you mean '{near}'?" if near else ""),
                where=plan.source.where((*place, "label")),
                expected="one of: " + ", ".join(sorted(labels)),
            )
    spent = {_spent(cell) for cell in plan.cells if cell.label in cells.label}
    absent = [nfe for nfe in cells.nfe or () if nfe not in spent]
    if absent and None not in spent:
        raise UserError(
            f"a finding is about {absent[0]:g} evaluations, which no cell of these labels spends",
            where=plan.source.where((*place, "nfe")),
            expected="some of: " + ", ".join(f"{n:g}" for n in sorted(n for n in spent if n)),
        )


def _filled(
    run: RunEntry, axes: dict[str, Any], sampler: Sampler, recipe: Recipe | None, where: str
) -> str:
    names = {"sampler": sampler.name, "model": run.model}
    names |= {f"sampler.{k}": as_scalar(v) for k, v in sampler.spec().items()}
    names |= _flat(recipe.model_dump(mode="json")) if recipe else {}
    names |= axes

    def fill(found: re.Match[str]) -> str:
        if found[0] in ("{{", "}}"):
            return found[0][0]
        if found[1] in names:
            return str(names[found[1]])
        near = nearest(found[1] or "", names)
        raise UserError(
            f"label '{run.label}' has an unknown placeholder '{found[0]}'"
            + (f"; did you mean '{{{near}}}'?" if near else ""),
            where=where,
            expected="one of: " + ", ".join(f"{{{k}}}" for k in (*axes, "sampler", "model")),
            fix="write {{ and }} for braces",
        )

    return _PLACEHOLDER.sub(fill, run.label or "")


def _flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """`{objective: {name: cd, points: 18}}` as `objective: cd` and `objective.points: 18`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[before + key] = as_scalar(value)
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
    return found


def _name(cell: Cell) -> str:
    return canonical([cell.label, cell.axes, _spent(cell) or _sampler(cell), cell.seed])


def _spent(cell: Cell) -> float | None:
    """Evaluations per image that the sampler is known to spend beforehand."""
    return cell.sampler.nfe() if cell.sampler else None


def _sampler(cell: Cell) -> dict[str, Any]:
    return cell.sampler.spec() if cell.sampler else {}


def _repeats(one: Cell, other: Cell) -> bool:
    """Whether two networks are trainings of one recipe from different seeds."""
    mine = one.network.recipe if one.network else None
    theirs = other.network.recipe if other.network else None
    if mine is None or theirs is None or mine.seed == theirs.seed:
        return False
    return mine.digest_without_seed() == theirs.digest_without_seed()
