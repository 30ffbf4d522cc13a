"""Verification of a results folder: confirmed as it is, and every tampering caught."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.digests import digest
from cmbench.core.loader import bundled_root, create
from cmbench.report.write import write_report
from cmbench.train.recipe import read_recipe

SUITE = """\
suite: small
dataset: digits
images: {count: 60, shard: 20}
features: digits_classifier
metrics: [frechet_distance, {name: precision_recall, k: 3}]
runs:
  - {model: oracle/consistency, label: oracle, sampler: multistep, nfe: [1]}
  - {model: edm/digits, label: net, weights: w.safetensors, sampler: heun, nfe: [1]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of an oracle and a small network, run once."""
    import torch

    folder = tmp_path_factory.mktemp("verify")
    recipe = read_recipe(bundled_root() / "models" / "edm" / "recipes" / "digits.yaml")
    torch.manual_seed(0)
    state = create("model", recipe.model).build().state_dict()
    save_file({k: v.clone() for k, v in state.items()}, folder / "w.safetensors")
    (folder / "small.yaml").write_text(SUITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CMBENCH_CACHE", str(folder / "cache"))
        done = CliRunner().invoke(
            app, ["run", str(folder / "small.yaml"), "--results", str(folder), "-q",
                  "--no-report", "--device", "cpu"],
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    write_report(folder / "small")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy to tamper with; its cache is empty, as on another machine."""
    for name in ("small", "small.yaml", "w.safetensors"):
        source = made / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def _verify(place: Path, *more: str) -> tuple[int, dict]:
    done = CliRunner().invoke(
        app, ["verify", str(place / "small"), "--suite", str(place / "small.yaml"), "--json",
              "--device", "cpu", "--fraction", "1", *more],
    )  # fmt: skip
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def _record(place: Path, label: str) -> Path:
    return next(
        f for f in (place / "small" / "records").glob("*.json")
        if json.loads(f.read_text())["label"] == label
    )  # fmt: skip


def _edit(file: Path, change: Callable[[dict], None]) -> None:
    held = json.loads(file.read_text())
    change(held)
    file.write_text(json.dumps(held))


def test_what_was_run_is_confirmed_to_the_bit(place):
    code, found = _verify(place)
    assert code == 0, [f for f in found["findings"] if f["verdict"] != "confirmed"]
    assert found["confirmed"]
    assert (found["shards"], found["claimed"], len(found["cells"])) == (6, 6, 2)
    whats = [f["what"] for f in found["findings"]]
    assert sum(what.startswith("images") for what in whats) == 6
    assert whats.count("FD-digits") == 2
    assert {f["verdict"] for f in found["findings"]} == {"confirmed", "on trust"}


def test_a_fraction_is_chosen_by_its_seed(place):
    chosen = {tuple(_verify(place, "--fraction", "0.2", "--seed", str(s))[1]["cells"])
              for s in range(4)}  # fmt: skip
    assert len(chosen) == 2
    code, found = _verify(place, "--fraction", "0.2", "--seed", "1")
    assert (code, found["shards"]) == (0, 1)


def _value(held: dict) -> None:
    held["scores"][0]["value"] *= 0.99


def _error(held: dict) -> None:
    held["scores"][0]["error"] *= 0.5


def _count(held: dict) -> None:
    held["images"] = held["identity"]["images"] = 50_000
    for score in held["scores"]:
        score["count"] = score["protocol"]["images"] = 50_000
        score["fingerprint"] = digest(score["protocol"])
    held["cell"] = digest(held["identity"])[:16]


def _score_count(held: dict) -> None:
    held["scores"][1]["count"] = 50_000


def _nfe(held: dict) -> None:
    held["nfe"] = 0.5


def _seed(held: dict) -> None:
    held["identity"]["seed"] = held["seed"] = 5


def _shard(held: dict) -> None:
    held["shards"][1] = "0" * 64


def _protocol(held: dict) -> None:
    held["scores"][1]["protocol"]["metric"]["k"] = 5


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_value, "claimed"),
        (_error, "error"),
        (_count, "unlike its file's name"),
        (_score_count, "scored on 50000 images"),
        (_nfe, "0.5 claimed, 1.0 expected"),
        (_seed, "not the hash of its identity"),
        (_shard, "other pixels"),
        (_protocol, "fingerprint"),
    ],
)
@pytest.mark.parametrize("label", ["oracle"])
def test_a_tampered_record_is_caught(place, tamper, said, label):
    file = _record(place, label)
    _edit(file, tamper)
    code, found = _verify(place)
    assert code == 1
    assert not found["confirmed"]
    assert said in " ".join(f["detail"] for f in found["findings"] if f["verdict"] == "differs")


def test_tampered_weights_are_caught(place):
    state = load_file(place / "w.safetensors")
    name = next(k for k, v in state.items() if v.ndim > 1)
    save_file({k: v * 1.01 if k == name else v for k, v in state.items()}, place / "w.safetensors")
    code, found = _verify(place)
    assert code == 1
    cells = {f["cell"] for f in found["findings"] if f["verdict"] == "differs"}
    # The cell of the record, and the one that the suite plans with these weights.
    assert len(cells) == 2
    assert _record(place, "net").stem in cells


def test_a_tampered_picture_table_or_suite_is_caught(place):
    record = _record(place, "oracle")
    picture = place / "small" / "samples" / f"{record.stem}.png"
    with Image.open(picture) as image:
        pixels = np.array(image)
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    code, found = _verify(place)
    assert code == 1
    assert f"samples/{picture.name}" in {
        f["what"] for f in found["findings"] if f["verdict"] == "differs"
    }
    shutil.copy(place / "small" / "leaderboard.csv", place / "kept.csv")
    table = place / "small" / "leaderboard.csv"
    lines = table.read_text().splitlines()
    cells = lines[1].split(",")
    cells[7] = "0.001"
    table.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    _, found = _verify(place, "--fraction", "0")
    assert any("leaderboard.csv" in f["what"] for f in found["findings"])
    suite = place / "small" / "suite.yaml"
    suite.write_text(suite.read_text().replace("count: 60", "count: 80"))
    code, found = _verify(place)
    assert code == 1


def test_trained_weights_that_are_not_here_are_said_to_be_unchecked(place):
    """A cell whose network was trained for the suite needs it, or --retrain."""
    text = (place / "small.yaml").read_text().replace(
        "weights: w.safetensors", "train: {images: 64, batch: 32}"
    )  # fmt: skip
    (place / "small.yaml").write_text(text)
    done = CliRunner().invoke(
        app, ["run", str(place / "small.yaml"), "--results", str(place), "-q", "--no-report",
              "--device", "cpu"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    write_report(place / "small", plots=False)
    shutil.rmtree(place / "small" / "plots")
    assert _verify(place)[0] == 0
    cache = Path(os.environ["CMBENCH_CACHE"])
    (weights,) = cache.glob("objects/train/*/*/weights.safetensors")
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    code, found = _verify(place)
    assert code == 1
    assert any("altered" in f["detail"] for f in found["findings"])
    code, found = _verify(place)
    assert code == 3
    assert any("--retrain" in f["detail"] for f in found["findings"])
    assert _verify(place, "--retrain")[0] == 0


def test_an_interval_of_another_version_of_the_metric_is_not_confirmed(place):
    """The score's key names the code's version: value and error are still held against ours."""

    def older(record: dict) -> None:
        score = record["scores"][0]
        score["key"] = "0" * 64
        score["interval"] = [score["interval"][0], score["interval"][1] + score["error"]]

    _edit(_record(place, "oracle"), older)
    shutil.rmtree(place / "small" / "plots")
    write_report(place / "small", plots=False)
    code, found = _verify(place)
    assert code == 3
    (finding,) = [f for f in found["findings"] if f["verdict"] == "unchecked"]
    assert "another version" in finding["detail"]
    _edit(_record(place, "oracle"), lambda r: r["scores"][0].update(value=1.0, key="0" * 64))
    assert _verify(place)[0] == 1
