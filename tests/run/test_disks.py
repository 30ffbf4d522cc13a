"""Real file systems that are full, read-only or closed: a clear word, and nothing lost."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_suite import cmbench, fresh, outputs


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size; the test is skipped where mounting is not permitted."""
    folder.mkdir(parents=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"a small disk can't be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "size", [pytest.param("48k", marks=_SLOW), "400k", pytest.param("1m", marks=_SLOW)]
)
def test_a_full_cache_disk_is_told_and_the_run_goes_on_later(undisturbed, tmp_path, size):
    folder = fresh(tmp_path / "a")
    with small_disk(folder / "cache", size) as disk:
        done = cmbench(folder, "run", "tiny.yaml", "--quiet")
        assert done.returncode in (1, 2), done.stderr
        assert "disk is full" in done.stderr or "No space left" in done.stderr
        assert "Traceback" not in done.stderr
        remount(disk, "size=200m")
        again = cmbench(folder, "run", "tiny.yaml", "--quiet")
        assert again.returncode == 0, again.stderr
        assert outputs(folder) == outputs(undisturbed)


@pytest.mark.parametrize(
    "size", [pytest.param("8k", marks=_SLOW), "24k", pytest.param("64k", marks=_SLOW)]
)
def test_a_full_results_disk_is_told_and_the_run_goes_on_later(undisturbed, tmp_path, size):
    folder = fresh(tmp_path / "b")
    cache = str(undisturbed / "cache")
    with small_disk(folder / "results", size) as disk:
        done = cmbench(folder, "run", "tiny.yaml", "--quiet", CMBENCH_CACHE=cache)
        assert done.returncode == 2, done.stderr
        assert "disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(disk.rglob("*.tmp"))
        remount(disk, "size=200m")
        again = cmbench(folder, "run", "tiny.yaml", "--quiet", CMBENCH_CACHE=cache)
        assert again.returncode == 0, again.stderr
        assert (disk / "tiny" / "report.html").is_file()


def test_read_only_results_are_told_before_any_work(tmp_path):
    folder = fresh(tmp_path / "c")
    with small_disk(folder / "results", "1m") as disk:
        remount(disk, "ro")
        done = cmbench(folder, "run", "tiny.yaml", "--quiet")
    assert done.returncode == 2
    assert "read-only" in done.stderr
    assert "--results" in done.stderr
    assert not list((folder / "cache").rglob("weights.safetensors"))


@pytest.mark.parametrize("place", ["/proc/cmbench", "/dev/null/cmbench"])
def test_a_cache_that_cant_be_written_is_told(tmp_path, place):
    folder = fresh(tmp_path / "d")
    done = cmbench(folder, "run", "tiny.yaml", CMBENCH_CACHE=place)
    assert done.returncode == 2
    assert f"the cache {place} can't be written" in done.stderr
    assert "CMBENCH_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
