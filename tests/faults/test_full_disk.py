"""The disk full at every write: a run on a disk that grows by a few pages after each failure."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import fresh, outputs, same


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs; the test is skipped where mounting is not permitted."""
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if made.returncode:
        pytest.skip(f"a small disk can't be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _grow(forks, whole, tmp_path, option: str, start: int, factor: float, unit: str) -> int:
    """Runs on cache and results on one small disk until it is large enough; the failures."""
    with small_disk(tmp_path / "disk", f"{option}={start}{unit}") as disk:
        failures, size = 0, start
        home = fresh(tmp_path / "home")
        for name in ("cache", "results"):
            (disk / name).mkdir()
            (home / name).symlink_to(disk / name)
        while True:
            run = forks.run(home)
            assert "Traceback" not in run.told
            if run.code == 0:
                break
            assert run.code in (1, 2), run.told
            assert "disk is full" in run.told or "No space left" in run.told, run.told
            assert not list(disk.rglob(".*.tmp")), run.told
            failures += 1
            size = max(size + 1, int(size * factor))
            remount(disk, f"{option}={size}{unit}")
        same(outputs(home), outputs(whole))
        return failures


@pytest.mark.parametrize("factor", [6.0, pytest.param(1.03, marks=pytest.mark.slow)])
def test_bytes_run_out_at_every_write(forks, whole, tmp_path, factor):
    failures = _grow(forks, whole, tmp_path, "size", 16, factor, "k")
    assert failures >= (2 if factor > 2 else 20)


@pytest.mark.slow
def test_files_run_out_at_every_new_file(forks, whole, tmp_path):
    """A disk may also have room for no more files; a tmpfs counts its inodes."""
    assert _grow(forks, whole, tmp_path, "nr_inodes", 6, 1.03, "") >= 20
