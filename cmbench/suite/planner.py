"""Turns a suite into a plan: cells, and the DAG of content-addressed jobs behind them.

Nothing is computed here but keys: names, parameters, files and impossible step counts are refused
before any network runs. Cells wait for what is not available yet, with the command that helps.
"""

from dataclasses import replace
from math import prod
from typing import Any

from cmbench.cards.cards import PlacedCard, find_card
from cmbench.cards.open import SourcedModel
from cmbench.core.digests import digest
from cmbench.core.errors import Pending, UserError, placing
from cmbench.core.loader import create, load
from cmbench.core.yaml_nodes import Place
from cmbench.core.yaml_source import Source
from cmbench.samplers.base import Sampler
from cmbench.store.jobs import Cost, Job, make_job
from cmbench.suite.axes import axis_points, sampler_axes
from cmbench.suite.checks import require_shape, require_used
from cmbench.suite.decoys import decoy_network, decoy_runs
from cmbench.suite.labels import label_of, refuse_unknown_claims, refuse_unnamed
from cmbench.suite.networks import DataLookup, networks_of_run
from cmbench.suite.plan import Cell, Plan, PlannedScore
from cmbench.suite.score_jobs import Scoring
from cmbench.suite.shared_prefixes import share_trajectories
from cmbench.suite.spec import ComponentSpec, RunEntry, Suite
from cmbench.train.recipe import read_recipe

__all__ = ["Cell", "Plan", "PlannedScore", "make_plan", "plan_of_tag"]

_MOST_CELLS = 100_000
_MOST_JOBS = 2_000_000


def make_plan(
    suite: Suite, source: Source, *, data: DataLookup | None = None, retrain: bool = False
) -> Plan:
    """Resolves every name of a suite and lays out its cells and jobs.

    Args:
        suite: The suite.
        source: The file it was read from, for the places of faults.
        data: Paths of data sets given on the command line.
        retrain: Train what has a recipe, though its weights are shipped.

    Raises:
        UserError: For a fault in the suite: file, line, key, what is allowed.
    """
    plan = Plan(suite, source, data or DataLookup({}))
    require_used(plan)
    scoring = Scoring(plan)
    for index, run in enumerate(suite.runs):
        with placing(source.where(("runs", index))):
            _add(plan, scoring, _cells_of_run(plan, run, index, retrain), ("runs", index, "model"))
    for form, run in decoy_runs(suite):
        with placing(source.where(("decoys",))):
            _add(plan, scoring, _cells_of_decoy(plan, form, run), ("decoys",))
    refuse_unnamed(plan)
    refuse_unknown_claims(plan)
    plan.jobs = share_trajectories(plan.jobs, plan.cells)
    return plan


def _add(plan: Plan, scoring: Scoring, cells: list[Cell], place: Place) -> None:
    where = plan.source.where(place)
    if cells and cells[0].pending is None:
        require_shape(plan, cells[0], where)
    for cell in cells:
        plan.cells.append(scoring.scored(cell) if cell.pending is None else cell)
    if len(plan.cells) > _MOST_CELLS or len(plan.jobs) > _MOST_JOBS:
        raise UserError(
            f"the suite has more than {_MOST_CELLS:,} cells, or {_MOST_JOBS:,} jobs",
            where=where,
            fix="fewer axes or seeds, a larger images.shard, or several suites",
        )


def plan_of_tag(plan: Plan, tag: str, *, retrain: bool = False) -> Plan:
    """The part of a plan whose runs have a tag; decoys have none.

    Raises:
        UserError: If no run has it.
    """
    runs = [run for run in plan.suite.runs if tag in run.tags]
    if not runs:
        known = sorted({t for run in plan.suite.runs for t in run.tags})
        raise UserError(
            f"no run of suite {plan.suite.suite} has the tag '{tag}'",
            where=str(plan.source.path),
            expected=f"one of: {', '.join(known)}" if known else "tags: [...] in a run",
        )
    part = plan.suite.model_copy(update={"runs": runs, "decoys": False, "findings": []})
    made = make_plan(part, plan.source, data=plan.data, retrain=retrain)
    every, kept = {cell.id for cell in plan.cells}, {cell.id for cell in made.cells}
    return replace(made, suite=plan.suite, left_out=frozenset(every - kept))


def _cells_of_run(plan: Plan, run: RunEntry, index: int, retrain: bool) -> list[Cell]:
    where = plan.source.where(("runs", index, "model"))
    card = find_card(run.model, where=where)
    named = plan.source.where(("runs", index, "label"))
    samplers = _samplers(plan, run, index, card)
    try:
        networks = networks_of_run(run, index, plan.source, plan.data, retrain=retrain)
    except Pending as reason:
        # Recipes are checked without data: what waits has the labels that it will have.
        return [
            _waiting(plan, run, card, point, sampler, seed, reason, named)
            for point in axis_points(run.train)
            for sampler in samplers
            for seed in plan.suite.images.seeds
        ]
    cells = []
    for network in networks:
        for job in network.jobs:
            plan.add(job)
        for sampler in samplers:
            _require_range(network, sampler, plan.source.where(("runs", index, "sampler")))
            for seed in plan.suite.images.seeds:
                cells.append(_cell(plan, run, network, sampler, seed, named))
    return cells


def _require_range(network: SourcedModel, sampler: Sampler, where: str) -> None:
    """Holds a sampler's noise levels against the model's, where the model states them."""
    low, high = (getattr(network.model, name, None) for name in ("sigma_min", "sigma_max"))
    if isinstance(low, float) and isinstance(high, float):
        with placing(where):
            sampler.require_range(low, high)


def _cells_of_decoy(plan: Plan, form: str, run: RunEntry) -> list[Cell]:
    sampler: Sampler = create("sampler", "oneshot")
    seeds = plan.suite.images.seeds
    try:
        network = decoy_network(form, plan.suite, plan.data)
    except Pending as reason:
        card = find_card(run.model)
        return [_waiting(plan, run, card, ({}, {}), sampler, seed, reason) for seed in seeds]
    return [_cell(plan, run, network, sampler, seed) for seed in seeds]


def _samplers(plan: Plan, run: RunEntry, index: int, card: PlacedCard) -> list[Sampler]:
    where = plan.source.where(("runs", index, "sampler"))
    makes = load("model", card.family, where=where).makes
    found: list[Sampler] = []
    for spec in run.sampler or [_own_sampler(card, where)]:
        base: Sampler = create("sampler", spec, where=where)
        if base.accepts not in makes:
            raise UserError(
                f"sampler '{base.name}' samples a {base.accepts}, '{card.full_name}' is a "
                f"{' or '.join(sorted(makes))}",
                where=where,
                expected="a sampler of its kind; the card or family names one",
            )
        place = plan.source.where(("runs", index, "steps" if run.steps else "nfe"))
        if run.nfe is not None:
            found += [_spending(base, nfe, place) for nfe in run.nfe]
        elif run.steps is not None:
            if "steps" not in type(base).model_fields:
                raise UserError(f"sampler '{base.name}' has no number of steps", where=place)
            given = {"name": base.name, **base.model_dump()}
            found += [create("sampler", {**given, "steps": n}, where=place) for n in run.steps]
        else:
            found.append(base)
    return found


def _own_sampler(card: PlacedCard, where: str) -> ComponentSpec:
    if card.card.sampler is not None:
        return card.card.sampler
    family: ComponentSpec | None = load("model", card.family, where=where).sampler
    if family is None:
        raise UserError(
            f"model '{card.full_name}' has no sampler of its own",
            where=where,
            expected="sampler: NAME",
        )
    return family


def _spending(sampler: Sampler, nfe: int, where: str) -> Sampler:
    with placing(where):
        return sampler.with_nfe(nfe)


def _cell(
    plan: Plan,
    run: RunEntry,
    network: SourcedModel,
    sampler: Sampler,
    seed: int,
    where: str = "",
) -> Cell:
    suite = plan.suite
    of_network = {"model": network.model.spec(), "weights": network.weights}
    identity = _identity(suite, of_network, sampler, seed)
    shards = tuple(plan.add(job) for job in _sampling(plan, run, network, sampler, identity))
    axes = network.axes | _sampler_axes(run, sampler)
    return Cell(
        id=digest(identity)[:16],
        label=label_of(run, network.card, axes, sampler, network.recipe, where),
        card=network.card,
        axes=axes,
        sampler=sampler,
        seed=seed,
        images=suite.images.count,
        identity=identity,
        network=network,
        shards=shards,
    )


def _identity(
    suite: Suite, network: dict[str, Any], sampler: Sampler, seed: int
) -> dict[str, Any]:
    """Identity of a cell, whose hash is its id; `network` is the network's or waiting card's."""
    return {
        **network,
        "sampler": sampler.spec(),
        "seed": seed,
        "images": suite.images.count,
        "quantisation": suite.quantisation,
    }


def _sampling(
    plan: Plan, run: RunEntry, network: SourcedModel, sampler: Sampler, identity: dict[str, Any]
) -> list[Job]:
    count, shard = plan.suite.images.count, plan.suite.images.shard
    jobs = []
    for first in range(0, count, shard):
        size = min(shard, count - first)
        spec = {k: v for k, v in identity.items() if k != "images"}
        jobs.append(
            make_job(
                "sample",
                {**spec, "first": first, "count": size},
                needs=(network.jobs[-1].address,) if network.jobs else (),
                title=f"sample {network.card.full_name} {_detail(network.axes)}{sampler.name} "
                f"[{first}:{first + size}]",
                transport={
                    "weights_file": str(network.file) if network.file else None,
                    "batch": plan.suite.batch,
                    "nfe": sampler.nfe() if run.nfe is not None else None,
                },
                cost=Cost(
                    evaluations=(sampler.nfe() or 0) * size,
                    network=network.card.full_name,
                    bytes=size * prod(network.card.card.shape or (3, 32, 32)),
                ),
            )
        )
    return jobs


def _waiting(
    plan: Plan,
    run: RunEntry,
    card: PlacedCard,
    point: tuple[dict[str, Any], dict[str, Any]],
    sampler: Sampler,
    seed: int,
    reason: Pending,
    where: str = "",
) -> Cell:
    given, trained = point
    recipe = read_recipe(card.recipe_file) if card.recipe_file else None
    axes = trained | _sampler_axes(run, sampler)
    of_card = {
        "card": card.full_name,
        "train": {k: str(v) for k, v in given.items()},
    }
    identity = _identity(plan.suite, of_card, sampler, seed)
    return Cell(
        id=digest(identity)[:16],
        label=label_of(run, card, axes, sampler, recipe and recipe.with_overrides(given), where),
        card=card,
        axes=axes,
        sampler=sampler,
        seed=seed,
        images=plan.suite.images.count,
        identity=identity,
        pending=reason,
    )


def _sampler_axes(run: RunEntry, sampler: Sampler) -> dict[str, Any]:
    return sampler_axes(sampler, [create("sampler", spec) for spec in run.sampler or ()])


def _detail(axes: dict[str, Any]) -> str:
    return f"({', '.join(str(v) for v in axes.values())}) " if axes else ""
