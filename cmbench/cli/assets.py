"""`cmbench assets`: list, fetch, add, verify and prune official files."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cmbench.cli.complete import complete_asset
from cmbench.cli.options import AsJson, print_json
from cmbench.core.errors import CmbenchError, UserError

__all__ = ["assets"]

assets = typer.Typer(no_args_is_help=True, help="Official weights and statistics.")

Name = Annotated[str, typer.Argument(help="Name in the catalogue.", autocompletion=complete_asset)]
Names = Annotated[
    list[str], typer.Argument(help="Names in the catalogue.", autocompletion=complete_asset)
]


@assets.command("list")
def assets_list(
    here: Annotated[bool, typer.Option("--here", help="Only files on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Lists the catalogue and which of its files are on this machine."""
    from cmbench.assets.catalogue import catalogue
    from cmbench.core.paths import cache_folder

    folder = cache_folder() / "assets"
    rows = [
        {
            "asset": name,
            "here": (folder / asset.file).is_file(),
            "bytes": asset.bytes,
            "licence": asset.licence,
            "url": asset.url,
            "page": asset.page,
            "file": asset.file,
        }
        for name, asset in catalogue().items()
    ]
    rows = [row for row in rows if row["here"] or not here]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        mark = "here   " if row["here"] else "not here" if row["url"] else "by hand"
        sys.stdout.write(f"{mark:8}  {row['asset']}  ({row['licence']})\n")


@assets.command("show")
def assets_show(name: Name, as_json: AsJson = False) -> None:
    """Shows one asset of the catalogue: its address, checksum, licence and path."""
    import yaml

    from cmbench.assets.catalogue import find_asset
    from cmbench.core.paths import cache_folder

    asset = find_asset(name)
    path = cache_folder() / "assets" / asset.file
    shown = {
        "asset": name,
        **asset.model_dump(mode="json", exclude_defaults=True),
        "here": path.is_file(),
        "path": str(path),
    }
    if as_json:
        print_json(shown)
    else:
        sys.stdout.write(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))


@assets.command("fetch")
def assets_fetch(
    names: Names,
    mirror: Annotated[
        str | None, typer.Option(help="URL or folder to download from instead.")
    ] = None,
    attempts: Annotated[
        int, typer.Option(min=1, help="Attempts in a row without data before giving up.")
    ] = 5,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds without data before a retry.")
    ] = 30.0,
) -> None:
    """Downloads assets: resumes partial downloads, retries, and verifies their SHA-256.

    If one fails, the others are still downloaded, and the exit code is 2.
    """
    from cmbench.assets.download import Patience, fetch
    from cmbench.engine.progress import show_progress

    patience = Patience(attempts=attempts, timeout=timeout)
    faults: list[str] = []
    with show_progress(len(names)) as shown:
        for name in names:
            shown.start_job(f"fetch {name}")
            try:
                path = fetch(
                    name,
                    mirror=mirror,
                    progress=lambda done, total: shown.tick(done, total or 0),
                    patience=patience,
                    waiting=lambda owner: shown.say(f"waiting: {owner} is downloading it"),
                )
            except CmbenchError as error:
                faults.append(f"error: {error}")
                shown.end_job("failed")
                continue
            shown.end_job()
            sys.stdout.write(f"{path}\n")
    for fault in faults:
        Console(stderr=True).print(fault, markup=False, highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(2)


@assets.command("add")
def assets_add(
    name: Name, file: Annotated[Path, typer.Argument(help="The file to copy.")]
) -> None:
    """Copies a file that you downloaded yourself into the cache, after verifying it."""
    from cmbench.assets.download import add
    from cmbench.core.paths import user_path

    sys.stdout.write(f"{add(name, user_path(file))}\n")


@assets.command("path")
def assets_path(name: Name) -> None:
    """Prints the path of an asset in the cache."""
    from cmbench.assets.download import asset_path

    sys.stdout.write(f"{asset_path(name)}\n")


@assets.command("verify")
def assets_verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names; by default all assets on this machine.", autocompletion=complete_asset
        ),
    ] = None,
) -> None:
    """Verifies assets against their published or recorded SHA-256."""
    from cmbench.assets.catalogue import catalogue
    from cmbench.assets.download import verify
    from cmbench.core.paths import cache_folder

    folder = cache_folder() / "assets"
    selection = names or [n for n, a in catalogue().items() if (folder / a.file).is_file()]
    for name in selection:
        sys.stdout.write(f"{verify(name)}  {name}\n")


@assets.command("prune")
def assets_prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove the files.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list them (the default).")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Include interrupted downloads.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Lists (or with --yes removes) leftovers and files that belong to no asset in the catalogue.

    `assets.yaml` is read from the working directory, so run this in the folder that holds yours.
    """
    from cmbench.assets.prune import find_dead, remove_dead

    if yes and dry_run:
        raise UserError("--yes and --dry-run can't both be given")
    dead = find_dead(partial=partial)
    if yes:
        remove_dead(dead)
    if as_json:
        rows = [{"path": str(d.path), "bytes": d.bytes, "why": d.why} for d in dead]
        print_json({"files": rows, "removed": yes})
        return
    for file in dead:
        sys.stdout.write(f"{file.bytes:>15,}  {file.path}: {file.why}\n")
    total = sum(d.bytes for d in dead)
    ending = "removed" if yes else "use --yes to remove them" if dead else "nothing to remove"
    summary = f"{len(dead)} files, {total:,} bytes: {ending}"
    Console(stderr=True).print(summary, markup=False, highlight=False, soft_wrap=True)
