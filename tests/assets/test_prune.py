"""Pruning: what serves nothing goes when asked, everything else stays."""

import json
import os

import pytest
from typer.testing import CliRunner

from cmbench.assets.prune import find_dead, remove_dead
from cmbench.cli.main import app
from cmbench.core.paths import cache_folder

ROWS = """\
one: {url: https://example.org/one, file: one.bin, licence: "-", citation: "-"}
two: {url: https://example.org/two, file: two.bin, licence: "-", citation: "-"}
"""
KEPT = {"one.bin", "one.bin.sha256", "two.bin.part", "two.bin.part.json"}
DEAD = {
    "one.bin.part": "one is complete",
    "two.bin.sha256": "without its file",
    "old.bin": "no asset",
    "old.bin.sha256": "no asset",
    "old.bin.part": "no asset",
    ".one.bin.sha256.x1y2.tmp": "killed",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets.yaml").write_text(ROWS)
    place = cache_folder() / "assets"
    (place / "a folder").mkdir(parents=True)
    for name in (*KEPT, *DEAD):
        (place / name).write_bytes(b"12345")
    return place


def names(folder):
    return {f.name for f in folder.iterdir() if f.is_file()}


def test_what_serves_nothing_is_found_with_the_reason(folder):
    found = {d.path.name: d for d in find_dead()}
    assert set(found) == set(DEAD)
    for name, why in DEAD.items():
        assert why in found[name].why
        assert found[name].bytes == 5


def test_downloads_that_broke_off_go_when_asked(folder):
    found = {d.path.name for d in find_dead(partial=True)}
    assert found == {*DEAD, "two.bin.part", "two.bin.part.json"}


def test_what_a_living_process_brings_stays(folder):
    lease = cache_folder() / "leases" / "asset-two.bin"
    lease.parent.mkdir(exist_ok=True)
    lease.touch()
    assert "two.bin.part" not in {d.path.name for d in find_dead(partial=True)}
    os.utime(lease, (0, 0))
    assert "two.bin.part" in {d.path.name for d in find_dead(partial=True)}


def test_a_link_goes_without_what_it_points_to(folder, tmp_path):
    (tmp_path / "weights").write_bytes(b"precious")
    (folder / "linked.bin").symlink_to(tmp_path / "weights")
    remove_dead(find_dead())
    assert not (folder / "linked.bin").is_symlink()
    assert (tmp_path / "weights").read_bytes() == b"precious"


def test_gone_meanwhile_is_no_fault(folder):
    dead = find_dead()
    dead[0].path.unlink()
    assert remove_dead(dead) == 5 * (len(DEAD) - 1)


def run(*args):
    return CliRunner().invoke(app, ["assets", "prune", *args])


def test_the_command_lists_first_and_removes_with_yes(folder):
    before = names(folder)
    for listing in (run(), run("--dry-run")):
        assert listing.exit_code == 0
        assert "use --yes to remove them" in listing.stderr
        assert "old.bin: of no asset in the catalogue" in listing.stdout
    assert names(folder) == before
    assert "both" in str(run("--yes", "--dry-run").exception)
    done = json.loads(run("--yes", "--json").stdout)
    assert done["removed"] is True
    assert len(done["files"]) == len(DEAD)
    assert names(folder) == KEPT
    assert "nothing to remove" in run().stderr


def test_an_empty_cache_has_nothing_to_remove():
    assert find_dead() == []
