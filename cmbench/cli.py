"""The command line: `cmbench run SUITE`, then `cmbench report`. Heavy imports wait for use."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cmbench import __version__
from cmbench.cli_assets import assets
from cmbench.cli_complete import (
    DEVICES,
    EDITS,
    ENGINES,
    complete_component,
    complete_model,
    complete_results,
    complete_suite,
    one_of,
)
from cmbench.cli_examples import teach
from cmbench.cli_models import models
from cmbench.cli_trust import register
from cmbench.core.errors import CmbenchError, Interrupted, UserError, disk_error

if TYPE_CHECKING:
    from cmbench.train.loop import TrainState

__all__ = ["app", "main"]

app = typer.Typer(
    name="cmbench",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Evaluate and benchmark few-step image generators: one YAML file to a leaderboard.

    **First steps:** `cmbench run digits_nfe` trains small models on 8x8 digits and compares them,
    offline; `cmbench report results/digits_nfe` renders what it found; `cmbench plan SUITE` says
    what a run would cost.

    **Exit codes:** 0 all well, 1 some cells failed, 2 a mistake in what was given, 3 cells or
    scores are pending under `--strict`, 130 interrupted (run the same command again to go on).
    """,
)

Suite = Annotated[
    str,
    typer.Argument(
        help="A suite's YAML file, or the name of a bundled suite.", autocompletion=complete_suite
    ),
]
Consistency = Annotated[
    str,
    typer.Argument(help="A consistency model, family/card.", autocompletion=complete_model),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", help="Where data is: PATH for the suite's own set, or NAME=PATH."),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=one_of(DEVICES))
]
Features = Annotated[
    str, typer.Option(help="Extractor.", autocompletion=complete_component("features"))
]
Results = Annotated[Path, typer.Option(help="Folder of results; the suite's name is added.")]
Retrain = Annotated[
    bool, typer.Option("--retrain", help="Train what has a recipe, though weights are shipped.")
]
Tag = Annotated[str | None, typer.Option(help="Only the suite's runs that have this tag.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


@app.command()
def run(
    suite: Suite,
    data: Data = None,
    results: Results = Path("results"),
    device: Device = "auto",
    retrain: Retrain = False,
    tag: Tag = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Pending cells or scores are an error.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the report at the end.")
    ] = True,
    engine: Annotated[
        str,
        typer.Option(help="Where jobs run: local, ray or slurm.", autocompletion=one_of(ENGINES)),
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto, HOST:PORT; none starts one here.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.1, help="CPUs a job or worker gets.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs a job or worker gets.")] = 0.0,
    workers: Annotated[int, typer.Option(min=1, help="Workers of the Slurm array.")] = 1,
    slurm: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of the Slurm array: partition, time (minutes), account."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds without a sign of life until a job counts as hung."),
    ] = None,
    race: Annotated[
        bool, typer.Option("--race", help="In rounds: cells whose rank is settled stop early.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Runs a suite: trains, samples, scores. Run it again to resume; nothing is made twice."""
    if dry_run:
        plan(suite, data, device, retrain, tag, as_json)
        return
    from cmbench.run.engines import EngineOptions, open_engine
    from cmbench.run.estimate import needed_jobs
    from cmbench.run.progress import board
    from cmbench.run.suite_run import run_suite
    from cmbench.run.waiting import waiting_lines
    from cmbench.run.workbench import Workbench

    if race and engine != "local":
        raise UserError(
            f"--race --engine {engine}: a race runs in one process", fix="--engine local"
        )
    options = EngineOptions(address, cpus, gpus, timeout, workers, _pairs("--slurm", slurm or []))
    planned, store, chosen = _planned(suite, data, device, retrain, tag)
    to_do = sum(not there for there in needed_jobs(planned, store).values())
    with (
        board(to_do, quiet=quiet) as shown,
        open_engine(engine, Workbench(store, chosen), shown, options) as opened,
    ):
        if race:
            from cmbench.run.race import race_suite

            planned = race_suite(planned, opened, results / planned.suite.suite)
        outcome = run_suite(planned, opened, results / planned.suite.suite)
    if write:
        from cmbench.report.commands import write_report

        write_report(outcome.folder)
    summary = {
        "results": str(outcome.folder),
        "done": outcome.done + outcome.cached,
        "new": outcome.done,
        "failed": outcome.failed,
        "pending": outcome.pending,
        "pending_scores": sum(
            score.pending is not None
            for cell in planned.cells
            if cell.pending is None
            for score in cell.scores
        ),
    }
    _tell_outcome(summary, waiting_lines(planned), as_json, write)
    if outcome.failed:
        raise typer.Exit(1)
    if strict and (summary["pending"] or summary["pending_scores"]):
        raise typer.Exit(3)


@app.command()
def plan(
    suite: Suite,
    data: Data = None,
    device: Device = "auto",
    retrain: Retrain = False,
    tag: Tag = None,
    as_json: AsJson = False,
) -> None:
    """Prints what a run would do: jobs, what is cached, evaluations, time and disk."""
    from cmbench.run.estimate import estimate_plan
    from cmbench.run.plan_table import plan_as_json, print_plan

    planned, store, chosen = _planned(suite, data, device, retrain, tag)
    estimate = estimate_plan(planned, store, chosen)
    if as_json:
        _print_json(plan_as_json(planned, store, estimate))
    else:
        print_plan(planned, store, estimate, Console())


@app.command()
def check(suite: Suite, data: Data = None, as_json: AsJson = False) -> None:
    """Checks a suite without running it: every key, name, parameter, file and step count."""
    planned, _, _ = _planned(suite, data, "cpu", retrain=False)
    waiting = [c for c in planned.cells if c.pending is not None]
    if as_json:
        reasons = sorted({str(c.pending) for c in waiting})
        _print_json({"suite": str(planned.source.path), "cells": len(planned.cells),
                     "jobs": len(planned.jobs), "pending": len(waiting),
                     "reasons": reasons})  # fmt: skip
        return
    Console().print(
        f"{planned.source.path}: {len(planned.cells)} cells, {len(planned.jobs)} jobs"
        + (f", {len(waiting)} cells pending: {waiting[0].pending}" if waiting else ""),
        markup=False,
        highlight=False,
    )


@app.command()
def doctor(
    network: Annotated[bool, typer.Option(help="Try the hosts of official weights.")] = True,
    as_json: AsJson = False,
) -> None:
    """Says what will and won't work on this machine, and what brings what is missing."""
    from cmbench.run.doctor import examine

    console = Console()
    checks = []
    for check in examine(network=network):
        checks.append(vars(check))
        if not as_json:
            console.print(f"{check.state:8}{check.subject}: {check.detail}", markup=False,
                          highlight=False, soft_wrap=True)  # fmt: skip
            if check.fix:
                console.print(f"{'':8}  bring it with: {check.fix}", markup=False,
                              highlight=False, soft_wrap=True)  # fmt: skip
    if as_json:
        _print_json(checks)
    if any(check["state"] == "wrong" for check in checks):
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Results folders.", autocompletion=complete_results),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Print this model (or family) across suites instead.",
            autocompletion=complete_model,
        ),
    ] = None,
    site: Annotated[
        Path | None, typer.Option(help="Write a static site over all the folders here.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show the site in a browser, to this machine alone.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="For --serve; 0: a free one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Renders results: leaderboard.md, .csv and .tex, plots, samples.png and report.html.

    Without a folder, every suite under results/. With several, their tables side by side too.
    """
    from cmbench.report.across import model_across
    from cmbench.report.commands import side_by_side, write_report

    chosen = folders or sorted(f.parent for f in Path("results").glob("*/records"))
    if not chosen:
        raise UserError("no results under results/", fix="cmbench run digits_nfe")
    if model is not None:
        sys.stdout.write(model_across(chosen, model).markdown())
        return
    if site is not None or serve:
        _site(chosen, site, serve, port)
        return
    console = Console(stderr=True)
    written = {str(folder): [str(path) for path in write_report(folder)] for folder in chosen}
    if as_json:
        _print_json(written)
        return
    for folder in chosen:
        console.print(f"open {folder / 'report.html'}", markup=False, highlight=False)
    if len(chosen) > 1:
        sys.stdout.write(side_by_side(chosen))


def _site(folders: list[Path], site: Path | None, served: bool, port: int) -> None:
    import tempfile
    import webbrowser

    from cmbench.report.serve import serve
    from cmbench.report.site import write_site

    def tell(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        if sys.stdout.isatty():
            webbrowser.open(url)
            sys.stderr.write("Ctrl-C ends it\n")

    with tempfile.TemporaryDirectory() as place:
        index = write_site(folders, site or Path(place))
        if not served:
            sys.stdout.write(f"{index}\n")
            return
        try:
            serve(index.parent, port, tell)
        except Interrupted:
            return


@app.command()
def train(
    recipes: Annotated[
        list[Path], typer.Argument(metavar="RECIPE...", help="A recipe's YAML file, or several.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for checkpoints, log and weights; of several, one in it each."),
    ],
    data: Annotated[Path | None, typer.Option(help="Where the data set is.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Teacher's weights or folder.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights or folder of the card the recipe starts from.")
    ] = None,
    device: Device = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Trains a recipe; run it again to resume. Several GPUs: `torchrun ... -m cmbench train`.

    Several recipes of consistency distillation that differ in distance, target or optimiser train
    together: one teacher's passes serve them all, and each gets the weights it would get alone.
    """
    from cmbench.run.environment import pick_device
    from cmbench.run.progress import board
    from cmbench.run.recipe_command import run_recipes
    from cmbench.train.recipe import read_recipe

    total = sum(read_recipe(recipe).images for recipe in recipes)
    seen: dict[str, int] = {}
    with board(1, quiet=quiet) as shown:

        def progress(state: "TrainState") -> None:
            seen[state.recipe] = state.images
            shown.tick(sum(seen.values()), total, f"loss {state.loss:.4f}")

        shown.start_job(f"train {', '.join(str(recipe) for recipe in recipes)}")
        results = run_recipes(
            recipes,
            out=out,
            data=data,
            teacher=teacher,
            start=start,
            device=str(pick_device(device)),
            progress=progress,
        )
        shown.end_job()
    for result in results:
        sys.stdout.write(f"{result.weights}\n")


@app.command()
def edit(
    model: Consistency,
    task: Annotated[
        str,
        typer.Option(
            help="inpaint, colourise, super-resolve, interpolate or denoise.",
            autocompletion=one_of(EDITS),
        ),
    ] = "inpaint",
    weights: Annotated[Path | None, typer.Option(help="Weights file or trained folder.")] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="Data set whose images are edited.", autocompletion=complete_component("dataset")
        ),
    ] = "digits",
    data: Annotated[Path | None, typer.Option(help="Where the data set is.")] = None,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("edited.png"),
    count: Annotated[int, typer.Option(min=2, help="Images.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Evaluations an image.")] = 17,
    seed: int = 0,
) -> None:
    """Edits images zero-shot by a consistency model; rows: original, what is given, what is made.

    interpolate walks between two noises instead: its second row shows the noises.
    """
    from typing import get_args

    from PIL import Image

    from cmbench.core.errors import unknown_name
    from cmbench.core.files import atomic_file
    from cmbench.core.loader import create
    from cmbench.run.consistency_tools import Task, edit_sheet, load_denoiser
    from cmbench.run.environment import pick_device

    if task not in get_args(Task):
        raise unknown_name("task", task, get_args(Task))
    denoiser = load_denoiser(model, weights, pick_device("cpu"))
    images = create("dataset", dataset).open(data)
    sheet = edit_sheet(denoiser, images, task, count=count, steps=steps, seed=seed)  # type: ignore[arg-type]
    picture = Image.fromarray(sheet.numpy())
    zoom = max(1, 320 // max(denoiser.shape[1:]) // 5)
    picture = picture.resize(
        (picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST
    )
    with atomic_file(out) as file:
        picture.save(file, format="PNG")
    sys.stdout.write(f"{out}\n")


@app.command("search-steps")
def search_steps_command(
    model: Consistency,
    weights: Annotated[Path | None, typer.Option(help="Weights file or trained folder.")] = None,
    nfe: Annotated[int, typer.Option(min=2, help="Evaluations an image.")] = 2,
    grid: Annotated[int, typer.Option(min=3, help="Points of the Karras grid.")] = 18,
    dataset: Annotated[
        str,
        typer.Option(help="Data set to be near to.", autocompletion=complete_component("dataset")),
    ] = "digits",
    data: Annotated[Path | None, typer.Option(help="Where the data set is.")] = None,
    features: Features = "digits_classifier",
    count: Annotated[int, typer.Option(min=10, help="Images a candidate.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the search; boards use others.")] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Searches multi-step time points: greedy, ternary, all candidates at the same noise."""
    from cmbench.core.loader import create
    from cmbench.run.consistency_tools import load_denoiser, search_steps
    from cmbench.run.environment import pick_device

    denoiser = load_denoiser(model, weights, pick_device("cpu"))
    chosen = create("dataset", dataset)
    try:
        found = search_steps(
            denoiser,
            chosen,
            chosen.open(data),
            features,
            nfe=nfe,
            grid=grid,
            count=count,
            seed=seed,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    sampler = {"name": "multistep", "indices": list(found.indices), "grid": grid}
    if as_json:
        _print_json({"sampler": sampler, "value": found.value, "tried": len(found.tried)})
        return
    sys.stdout.write(
        f"sampler: {json.dumps(sampler)}\n"
        f"Frechet distance {found.value:.4f}, the least of {len(found.tried)} tried\n"
    )


app.add_typer(models, name="models")
register(app)
app.add_typer(assets, name="assets")
teach(app)


def _planned(
    suite: str, data: list[str] | None, device: str, retrain: bool, tag: str | None = None
) -> tuple[Any, Any, Any]:
    from cmbench.record.shared_store import open_store
    from cmbench.run.environment import pick_device
    from cmbench.suite.plan import make_plan, plan_of_tag
    from cmbench.suite.sources import DataLookup
    from cmbench.suite.spec import read_suite

    chosen = pick_device(device)
    read, source = read_suite(suite)
    named = read.dataset if isinstance(read.dataset, str) else str(read.dataset.get("name"))
    lookup = DataLookup(_data_paths(data or [], named))
    planned = make_plan(read, source, data=lookup, retrain=retrain)
    if tag is not None:
        planned = plan_of_tag(planned, tag, retrain=retrain)
    return planned, open_store(), chosen


def _data_paths(given: list[str], default: str) -> dict[str, Path]:
    paths = {}
    for item in given:
        name, separator, path = item.partition("=")
        chosen = Path(path if separator else item).expanduser()
        if not chosen.exists():
            raise UserError(f"--data {item}: {chosen} does not exist")
        paths[name if separator else default] = chosen
    return paths


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in given]
    for key, separator, _ in pairs:
        if not (key and separator):
            raise UserError(f"{option} {key}: no value", expected=f"{option} KEY=VALUE")
    return {key: value for key, _, value in pairs}


def _tell_outcome(
    summary: dict[str, Any], waiting: list[str], as_json: bool, report: bool
) -> None:
    if as_json:
        _print_json(summary)
        return
    console = Console(stderr=True, soft_wrap=True)
    lines = [
        f"{summary['done']} cells done ({summary['new']} new), {summary['failed']} failed, "
        f"{summary['pending']} pending: {summary['results']}",
        *waiting,
    ]
    if report:
        lines.append(f"open {Path(summary['results']) / 'report.html'}")
    for line in lines:
        console.print(line, markup=False, highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        sys.stdout.write(f"cmbench {__version__}\n")
        raise typer.Exit


def main() -> None:
    """Entry point: runs the command; a known error is told in its words and exits with 2."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    console = Console(stderr=True)
    try:
        app()
    except CmbenchError as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except Interrupted:
        console.print("interrupted; run the same command again to go on from here", markup=False)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        told = disk_error(error, then=", then run the same command again")
        if told is None:
            raise
        console.print(f"error: {told}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted
