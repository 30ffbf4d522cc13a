"""One file makes a metric: it is scored, tabled, drawn, compared, raced and told of by its alias."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cmbench.cli.main import app

METRIC = '''\
"""Squared distance of the mean features: the first term of the Frechet distance."""
from typing import ClassVar
import numpy as np
from cmbench.api import Metric, Score

__all__ = ["MeanDistance"]


class MeanDistance(Metric):
    title: ClassVar[str] = "Mean distance"
    aliases: ClassVar[tuple[str, ...]] = ("md",)
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, None)
    outputs: ClassVar[tuple[str, ...]] = ("mean_distance",)
    needs_rows: ClassVar[bool] = False

    def scores(self, generated, reference):
        rows, gap = self._gap(generated, reference)
        error = float(self.influence(generated, reference)["mean_distance"].std() / len(rows) ** 0.5)
        value = float(gap @ gap)
        interval = (value - 1.96 * error, value + 1.96 * error)
        return {"mean_distance": Score(value, error, interval, len(rows))}

    def influence(self, generated, reference):
        rows, gap = self._gap(generated, reference)
        return {"mean_distance": 2 * (rows - rows.mean(0)) @ gap}

    def _gap(self, generated, reference):
        rows = generated.layers["pool"].astype(np.float64)
        return rows, rows.mean(0) - reference.moments["pool"].mean
'''

SUITE = """\
suite: small
dataset: digits
images: {count: 100, shard: 50, seeds: [%d]}
features: digits_classifier
metrics: [mean_distance, {name: mean_distance, features: pixels}]
runs:
  - {model: oracle/digits, label: heun, sampler: heun, nfe: [1, 3]}
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Result]:
    """Runs cmbench in a folder that has the metric, and two suites of equal cells already run."""
    folder = tmp_path_factory.mktemp("one_file")
    (folder / "metrics").mkdir()
    (folder / "metrics" / "mean_distance.py").write_text(METRIC)
    (folder / "small.yaml").write_text(SUITE % 0)

    def run(*arguments: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("CMBENCH_CACHE", str(folder / "cache"))
            return CliRunner().invoke(app, list(arguments))

    for results in ("a", "b"):
        done = run("run", "small.yaml", "-q", "--device", "cpu", "--results", results)
        assert done.exit_code == 0, done.output
    run.folder = folder  # type: ignore[attr-defined]
    return run


def test_its_board_names_it_by_its_title_and_its_space(command):
    folder: Path = command.folder / "a" / "small"
    table = (folder / "leaderboard.md").read_text()
    assert "Mean distance ↓ (n=100)" in table
    assert "Mean distance (FD-pixels) ↓ (n=100)" in table
    rows = csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_text()))
    assert {row["score"] for row in rows} == {"mean_distance"}
    assert any("mean" in plot.name for plot in (folder / "plots").glob("*.png"))


def test_two_runs_are_compared_by_its_terms(command):
    done = command("compare", "a/small", "b/small", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert rows
    assert all(row["paired"] and row["difference"] == 0 for row in rows)


def test_a_race_is_judged_by_it(command):
    done = command("run", "small.yaml", "--race", "-q", "--device", "cpu", "--results", "raced")
    assert done.exit_code == 0, done.output
    assert json.loads((command.folder / "raced" / "small" / "race.json").read_text())["score"] == (
        "mean_distance"
    )


def test_score_takes_it(command):
    np.savez(command.folder / "images.npz", arr_0=np.zeros((4, 8, 8, 1), np.uint8))
    done = command(
        "score", "--images", "images.npz", "--reference", "digits", "--features",
        "digits_classifier", "--metrics", "mean_distance", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["scores"][0]["title"] == "Mean distance"


@pytest.mark.parametrize(
    ("alias", "name"),
    [("md", "mean_distance"), ("fid", "frechet_distance"), ("FID", "frechet_distance"),
     ("is", "inception_score"), ("prdc", "density_coverage"), ("pr", "precision_recall")],
)  # fmt: skip
def test_other_names_of_the_field_are_answered_with_the_right_one(command, alias, name):
    (command.folder / "alias.yaml").write_text(
        (SUITE % 0).replace("[mean_distance,", f"['{alias}',")
    )
    done = command("check", "alias.yaml")
    assert f"no metric named '{alias}'. Did you mean '{name}'?" in str(done.exception)
