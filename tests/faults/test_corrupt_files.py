"""Corrupt bytes in each kind of cached file: found, made again, equal."""

import shutil
from pathlib import Path

import pytest
from forked import fresh, outputs, same, wait_for

KINDS = (
    "objects/train/*/*/weights.safetensors",
    "objects/train/*/*/log.json",
    "objects/sample/*/*/pixels.npy",
    "objects/sample/*/*/facts.json",
    "objects/sample/*/*/speed.json",
    "objects/features/*/*/pool.npy",
    "objects/features/*/*/logits.npy",
    "objects/reference/*/*/reference.npz",
    "objects/score/*/*/scores.json",
    "objects/*/*/*/manifest.json",
)
RESULTS = ("records/*.json", "samples/*.png", "speed.json", "provenance.json", "suite.yaml")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def _copy(whole: Path, to: Path) -> Path:
    shutil.copytree(whole, to)
    return to


def _spoil(root: Path, pattern: str, harm) -> None:
    files = sorted(root.glob(pattern))
    assert files, pattern
    for file in files:
        harm(file)


def _settle_again(forks, folder: Path) -> None:
    """Without records and scores everything that was made is read again."""
    shutil.rmtree(folder / "results" / "tiny" / "records")
    run = forks.run(folder)
    assert run.code == 0, run.told
    assert "Traceback" not in run.told


@pytest.mark.slow
@pytest.mark.parametrize("harm", [flip, cut, empty])
@pytest.mark.parametrize("pattern", KINDS)
def test_each_kind_of_output_in_the_store(forks, whole, tmp_path, pattern, harm):
    folder = _copy(whole, tmp_path / "a")
    _spoil(folder / "cache", pattern, harm)
    if "scores" not in pattern:
        shutil.rmtree(folder / "cache" / "objects" / "score")
    _settle_again(forks, folder)
    same(outputs(folder), outputs(whole))


@pytest.mark.parametrize("harm", [flip, pytest.param(cut, marks=pytest.mark.slow)])
def test_every_file_of_the_store_at_once(forks, whole, tmp_path, harm):
    folder = _copy(whole, tmp_path / "a")
    for pattern in KINDS[:-1]:
        _spoil(folder / "cache", pattern, harm)
    _settle_again(forks, folder)
    same(outputs(folder), outputs(whole))


@pytest.mark.parametrize("harm", [flip, cut, pytest.param(empty, marks=pytest.mark.slow)])
def test_results_beside_the_store(forks, whole, tmp_path, harm):
    folder = _copy(whole, tmp_path / "a")
    for pattern in RESULTS:
        _spoil(folder / "results" / "tiny", pattern, harm)
    run = forks.run(folder)
    assert run.code == 0, run.told
    assert "Traceback" not in run.told
    same(outputs(folder), outputs(whole))


@pytest.mark.parametrize("harm", [flip, pytest.param(cut, marks=pytest.mark.slow),
                                  pytest.param(empty, marks=pytest.mark.slow)])  # fmt: skip
def test_checkpoints_of_a_training_that_was_killed(forks, whole, tmp_path, harm):
    folder = fresh(tmp_path / "a")
    work = folder / "cache" / "work"
    run = forks.start(folder, "run", "tiny.yaml", "--no-report")
    wait_for(lambda: len(list(work.glob("*/checkpoint-*.pt"))) >= 2 or run.poll() is not None)
    run.kill()
    for file in work.glob("*/*"):
        harm(file)
    done = forks.run(folder)
    assert done.code == 0, done.told
    same(outputs(folder), outputs(whole))


@pytest.mark.parametrize("text", [pytest.param(text, marks=[pytest.mark.slow] if text else [])
    for text in ("", "{", "[]", '{"pid": "x", "host": 3}', "\0" * 10)])  # fmt: skip
def test_leases_that_say_nothing(forks, whole, tmp_path, text):
    """A lease that names no owner is one of a process that died while it wrote it."""
    folder = _copy(whole, tmp_path / "a")
    kept = [f.name for f in (folder / "cache" / "objects" / "score").glob("*/*")]
    shutil.rmtree(folder / "cache" / "objects" / "score")
    shutil.rmtree(folder / "results" / "tiny" / "records")
    for key in kept[:2]:
        (folder / "cache" / "leases" / key).write_text(text)
    soon = "import cmbench.store.leases as s; s._STALE_SECONDS = 0.5"
    run = forks.run(folder, before=soon)
    assert run.code == 0, run.told
    same(outputs(folder), outputs(whole))
