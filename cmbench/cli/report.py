"""`cmbench report`: renders results folders, or a site over several."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cmbench.cli.complete import complete_model, complete_results
from cmbench.cli.options import AsJson, print_json
from cmbench.core.errors import Interrupted, UserError

__all__ = ["report"]


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Results folders.", autocompletion=complete_results),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Only print the scores of this model (or family) in all suites.",
            autocompletion=complete_model,
        ),
    ] = None,
    site: Annotated[
        Path | None, typer.Option(help="Folder to write a static site of all results to.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the site to this machine and open a browser.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of --serve; 0: any free port.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Renders results: leaderboard.md, .csv and .tex, plots, samples.png and report.html.

    Without a folder, it renders every suite under results/. With several folders, it also prints
    their tables side by side.
    """
    from cmbench.report.across import model_across
    from cmbench.report.leaderboard import as_markdown
    from cmbench.report.write import side_by_side, write_report

    sources = folders or sorted(f.parent for f in Path("results").glob("*/records"))
    if not sources:
        raise UserError("no results under results/", fix="cmbench run digits_nfe")
    if model is not None:
        sys.stdout.write(as_markdown(model_across(sources, model)))
        return
    if site is not None or serve:
        _site(sources, site, serve, port)
        return
    console = Console(stderr=True)
    written: dict[str, list[str]] = {}
    for folder in sources:
        try:
            written[str(folder)] = [str(path) for path in write_report(folder)]
        except UserError as error:
            if len(sources) == 1:
                raise
            console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        print_json(written)
    else:
        for name in written:
            console.print(f"open {Path(name) / 'report.html'}", markup=False, highlight=False)
        if len(written) > 1:
            sys.stdout.write(side_by_side([Path(name) for name in written]))
    if len(written) < len(sources):
        raise typer.Exit(2)


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
            sys.stderr.write("press Ctrl-C to stop\n")

    with tempfile.TemporaryDirectory() as place:
        index = write_site(folders, site or Path(place))
        if not served:
            sys.stdout.write(f"{index}\n")
            return
        try:
            serve(index.parent, port, tell)
        except Interrupted:
            return
