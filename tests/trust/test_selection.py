"""What a choice among many does to a number, and what the store knows of choices."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cmbench.audit.selection import _objectives_of_cards, _trained_by, keep_search
from cmbench.cards.cards import find_card
from cmbench.cli.main import app
from cmbench.core.loader import create
from cmbench.metrics.base import Features, Moments, Reference
from cmbench.stats.selection import expected_gain

SUITE = """\
suite: {name}
dataset: digits
images: {{count: 40, seeds: [{seed}]}}
features: digits_classifier
metrics: [frechet_distance]
runs:
  - {{model: oracle/consistency, label: model, sampler: {sampler}, nfe: [2]}}
"""


@pytest.mark.parametrize("k", [1, 2, 5, 30])
def test_the_gain_is_the_expected_largest_of_normal_draws(k):
    drawn = np.random.default_rng(0).normal(size=(40_000, k)).max(axis=1)
    assert expected_gain(k) == pytest.approx(drawn.mean(), abs=0.02)


def test_only_the_held_out_number_is_unbiased():
    """Eight equal generators, the best chosen on tuning seeds, scored on them and on others."""
    reference = Reference("r", moments={"pool": Moments(np.zeros(4), np.eye(4), 0)})
    metric = create("metric", "frechet_distance")

    def score(*key: int) -> tuple[float, float]:
        rows = np.random.default_rng(key).normal(size=(60, 4)).astype(np.float32) * 1.2
        found = metric.scores(Features({"pool": rows}), reference)["frechet_distance"]
        return found.value, found.error

    chosen, held, every, errors = [], [], [], []
    for trial in range(250):
        tuned = [score(trial, 0, k) for k in range(8)]
        best = int(np.argmin([value for value, _ in tuned]))
        chosen.append(tuned[best][0])
        held.append(score(trial, 1, best)[0])
        every += [value for value, _ in tuned]
        errors += [error for _, error in tuned]
    truth, spread = np.mean(every), np.std(every)
    assert np.mean(held) == pytest.approx(truth, abs=3 * spread / 250**0.5)
    assert np.mean(chosen) < truth - spread
    # Its size is the one that is disclosed; draws are a little skew, so not to the digit.
    assert (truth - np.mean(chosen)) / np.mean(errors) == pytest.approx(expected_gain(8), rel=0.25)


def _ran(folder, name: str, seed: int, sampler: str) -> None:
    file = folder / f"{name}.yaml"
    file.write_text(SUITE.format(name=name, seed=seed, sampler=sampler))
    done = CliRunner().invoke(
        app, ["run", str(file), "--results", str(folder), "--no-report", "-q", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output


def _told(folder, name: str) -> dict:
    done = CliRunner().invoke(app, ["disclose", str(folder / name), "--json"])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.output)
    assert json.loads((folder / name / "selection.json").read_text()) == [found]
    return found


def test_the_store_tells_out_of_how_many_a_cell_was_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))
    points = "{name: multistep, grid: 18, indices: [0, %d, 17]}"
    for index in (5, 9, 12):
        _ran(tmp_path, f"tuning{index}", 1_000_000, points % index)
    _ran(tmp_path, "board", 0, points % 9)
    found = _told(tmp_path, "board")
    assert (found["tried"], found["samplers"], found["weights"]) == (3, 3, 1)
    assert found["other_seeds"] == [1_000_000]
    assert found["held_out"]
    assert (found["same_seeds"], found["gain"], found["searched"]) == (1, 0, 0)
    # Another one on the board's own seed, and a search on it: no longer held out.
    _ran(tmp_path, "again", 0, points % 5)
    found = _told(tmp_path, "board")
    assert not found["held_out"]
    assert found["same_seeds"] == 2
    assert found["gain"] == pytest.approx(expected_gain(2))
    keep_search(tmp_path / "cache", {"indices": [0, 9, 17], "grid": 18, "tried": 11, "seed": 7})
    assert _told(tmp_path, "board")["searched"] == 11
    shown = CliRunner().invoke(app, ["disclose", str(tmp_path / "board")])
    assert "best of 3" in shown.output
    assert "11 time points searched" in shown.output
    board = (tmp_path / "board" / "leaderboard.md").read_text()
    assert "| best of 3, 11 time points searched | its own: 0.56 standard errors too good" in board
    assert "(best of 3) |" in board
    assert "best of 3, 11 time points searched" in (tmp_path / "board" / "report.html").read_text()


def test_nothing_is_claimed_of_what_the_store_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))
    _ran(tmp_path, "board", 0, "multistep")
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "other"))
    done = CliRunner().invoke(app, ["disclose", str(tmp_path / "board")])
    assert done.exit_code == 0
    assert "no scores in this machine's store" in done.output


def test_different_methods_are_no_tries_of_one(tmp_path, monkeypatch):
    """Another sampler, other weights, and what stands on the board itself: none of them a choice."""
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))
    board = SUITE.split("  - ")[0].format(name="board", seed=0)
    board = board.replace("digits_classifier", "pixels")
    rows = [
        "{model: oracle/gaussian, label: a, sampler: {name: heun, rho: 5}, nfe: 3}",
        "{model: oracle/gaussian, label: b, sampler: {name: heun, rho: 7}, nfe: 3}",
        "{model: oracle/gaussian, label: c, sampler: dpmpp_2m, nfe: 3}",
    ]
    (tmp_path / "board.yaml").write_text(board + "".join(f"  - {row}\n" for row in rows))
    other = board.replace("suite: board", "suite: other")
    kept = "{model: oracle/gaussian, sampler: {name: heun, rho: 6}, nfe: 3}"
    (tmp_path / "other.yaml").write_text(f"{other}  - {kept}\n")
    for name in ("board", "other"):
        done = CliRunner().invoke(
            app, ["run", str(tmp_path / f"{name}.yaml"), "--results", str(tmp_path),
                  "--no-report", "-q", "--device", "cpu"],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["disclose", str(tmp_path / "board"), "--json"])
    assert done.exit_code == 0, done.output
    tried = {row["label"]: row["tried"] for row in json.loads(done.output)}
    # rho 6 is no row of this board: it is a try of both rows of Heun's.
    assert tried == {"a": 2, "b": 2, "c": 1}


def test_cards_tell_how_their_weights_were_trained():
    by_card = _objectives_of_cards()
    card = find_card("consistency/cifar10_cd_l1").card
    other = find_card("consistency/cifar10_cd_l2").card
    assert by_card[card.weights.sha256] != by_card[other.weights.sha256]
    context = None
    unknown = _trained_by(context, {"sha256": "f" * 64}, by_card)
    assert unknown != _trained_by(context, {"sha256": "e" * 64}, by_card)
