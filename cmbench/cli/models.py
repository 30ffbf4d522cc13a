"""`cmbench models`: list, show, check and start model plugins."""

import sys
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console

from cmbench.cli.complete import MODEL_KINDS, complete_model, one_of
from cmbench.cli.options import AsJson, print_json
from cmbench.core.errors import unknown_name

__all__ = ["models"]

models = typer.Typer(help="Model families and their cards: list, show, check, new.")

Name = Annotated[
    str,
    typer.Argument(help="family/card, or a family without cards.", autocompletion=complete_model),
]


@models.callback(invoke_without_command=True)
def _default(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        models_list(as_json)


@models.command("list")
def models_list(as_json: AsJson = False) -> None:
    """Lists all model families and their cards, and names families with invalid cards."""
    from cmbench.cards.cards import survey_cards

    cards, faults = survey_cards()
    for fault in faults:
        sys.stderr.write(f"not listed: {fault}\n")
    rows = [{"model": c.full_name, "weights": c.origin, "summary": c.card.summary} for c in cards]
    if as_json:
        print_json(rows)
        return
    for row in rows:  # no table: it would truncate names, which users copy
        sys.stdout.write(f"{row['model']}  ({row['weights']})\n    {row['summary']}\n")


@models.command("show")
def models_show(name: Name, as_json: AsJson = False) -> None:
    """Shows one card: its weights, its training, and published numbers."""
    import yaml

    from cmbench.cards.cards import find_card

    placed = find_card(name)
    shown = {
        "model": placed.full_name,
        "folder": str(placed.folder),
        "origin": placed.origin,
        **placed.card.model_dump(mode="json", exclude_defaults=True),
    }
    if as_json:
        print_json(shown)
    else:
        sys.stdout.write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))


@models.command("check")
def models_check(
    name: Name,
    weights: Annotated[
        Path | None, typer.Option(help="Weights to load instead of the card's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tests a plugin against the contract: counted evaluations, batch independence, range, ..."""
    from cmbench.testing.model_contract import check_model

    verdict = check_model(name, weights=weights)
    if as_json:
        print_json({"model": verdict.model, "holds": verdict.holds,
                     "findings": [vars(f) for f in verdict.findings]})  # fmt: skip
    else:
        console = Console()
        for finding in verdict.findings:
            mark = "ok    " if finding.holds else "BROKEN"
            console.print(f"{mark} {finding.rule}", markup=False, highlight=False)
            if not finding.holds:
                console.print(f"       seen: {finding.seen}", markup=False, highlight=False)
                console.print(f"       fix:  {finding.fix}", markup=False, highlight=False)
        broken = sum(not f.holds for f in verdict.findings)
        ending = "satisfies the contract" if verdict.holds else f"breaks {broken} rules"
        console.print(f"{verdict.model} {ending}", markup=False, highlight=False)
    if not verdict.holds:
        raise typer.Exit(1)


@models.command("new")
def models_new(
    name: Annotated[str, typer.Argument(help="Name of the new family.")],
    kind: Annotated[
        str,
        typer.Option(help="denoiser, restorer or oneshot.", autocompletion=one_of(MODEL_KINDS)),
    ] = "denoiser",
    folder: Annotated[Path, typer.Option(help="Folder of models/, suites/ and tests/.")] = Path(),
) -> None:
    """Writes a model family to start from: adapter, card, recipe, suite and test."""
    from cmbench.cards.scaffold import Kind, new_model

    if kind not in get_args(Kind):
        raise unknown_name("kind of model", kind, get_args(Kind))
    for path in new_model(name, kind, folder):  # type: ignore[arg-type]
        sys.stdout.write(f"{path}\n")
    sys.stderr.write(f"next: cmbench models check {name}/digits\n")
    sys.stderr.write(f"then: cmbench run suites/{name}.yaml\n")


@models.command("ship")
def models_ship(
    name: Name,
    run: Annotated[Path, typer.Option(help="Output folder of `cmbench train`.")],
) -> None:
    """Copies a finished training next to its adapter: float16 weights, log, digest on the card."""
    from cmbench.cards.ship import ship_weights

    for path in ship_weights(name, run):
        sys.stdout.write(f"{path}\n")
