"""`cmbench report`: renders results folders, or a site over several."""

import sys
from collections.abc import Callable
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
    from cmbench.report.write import side_by_side, write_reports

    sources = folders or sorted(f.parent for f in Path("results").glob("*/records"))
    if not sources:
        raise UserError("no results under results/", fix="cmbench run digits_nfe")
    if model is not None:
        _model(sources, model, as_json)
        return
    if site is not None or serve:
        _site(sources, site, serve, port, as_json)
        return
    written, failed = write_reports(sources, _progress(len(sources)))
    if as_json:
        print_json(
            {str(folder): [str(path) for path in paths] for folder, paths in written.items()}
        )
    else:
        for folder in written:
            _say(f"open {folder / 'report.html'}")
        if len(written) > 1:
            _print(side_by_side(list(written)))
    for error in failed:
        _say(f"error: {error}")
    if failed:
        raise typer.Exit(2)


def _model(folders: list[Path], model: str, as_json: bool) -> None:
    from cmbench.report.across import model_across
    from cmbench.report.leaderboard import as_markdown
    from cmbench.report.spreadsheet import csv_rows

    board = model_across(folders, model)
    if as_json:
        print_json({"model": model, "rows": list(csv_rows(board))})
    else:
        _print(as_markdown(board))


def _progress(count: int) -> Callable[[Path, int, bool], None]:
    """Tells of each report of many, and which were current."""

    def tell(folder: Path, left: int, written: bool) -> None:
        if count > 1:
            _say(f"{count - left}/{count} {folder}: {'written' if written else 'unchanged'}")

    return tell


def _say(line: str) -> None:
    from cmbench.report.escape import printable

    Console(stderr=True).print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _print(text: str) -> None:
    """Prints on standard output; what its encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _site(folders: list[Path], site: Path | None, served: bool, port: int, as_json: bool) -> None:
    import tempfile
    import webbrowser

    from cmbench.report.serve import serve
    from cmbench.report.site import write_site

    def tell(url: str) -> None:
        if as_json:
            print_json({"url": url})
        else:
            sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        if sys.stdout.isatty() and not as_json:
            webbrowser.open(url)
            sys.stderr.write("press Ctrl-C to stop\n")

    with tempfile.TemporaryDirectory() as place:
        index = write_site(folders, site or Path(place), _progress(len(folders)))
        if not served:
            if as_json:
                print_json({"index": str(index), "suites": [f.resolve().name for f in folders]})
            else:
                _print(f"{index}\n")
            return
        try:
            serve(index.parent, port, tell)
        except Interrupted:
            return
