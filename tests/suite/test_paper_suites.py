"""The papers' suites without network: planned whole, waiting whole, each told what brings it."""

import json
from math import prod

import pytest
import torch
from typer.testing import CliRunner

from cmbench.assets.catalogue import find_asset
from cmbench.cli.main import app
from cmbench.record.folder import read_records
from cmbench.run import waiting
from cmbench.run.waiting import estimate_waiting
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite

PAPERS = ["cifar10_nfe_paper", "imagenet64_nfe_paper"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def without_network(monkeypatch, tmp_path):
    monkeypatch.setenv("CMBENCH_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("CMBENCH_INCEPTION", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def untried(monkeypatch):
    """No network is timed: one evaluation of anything is said to take a millisecond."""
    monkeypatch.setattr(waiting, "probe_network", lambda model, sampler, device: 1e-3)


def planned(name):
    return make_plan(*read_suite(name))


@pytest.mark.parametrize("name", PAPERS)
def test_every_cell_waits_and_its_cost_is_told(name, untried):
    plan = planned(name)
    told = estimate_waiting(plan, CPU)
    assert told.cells == len(plan.cells) >= 10
    assert told.uncounted == []
    assert all(cell.pending is not None and cell.images == 50_000 for cell in plan.cells)
    least = sum((c.sampler.nfe() or 0) * 50_000 for c in plan.cells)
    assert told.evaluations >= least > 0
    pixels = sum(c.images * prod(c.card.card.shape or (3, 32, 32)) for c in plan.cells)
    layers = sum({"pool": 2048, "logits": 1008, "spatial": 2023}.values())
    assert told.bytes == pixels + 4 * layers * 50_000 * len(plan.cells)


def test_the_longest_chains_count_what_their_authors_printed(untried):
    plan = planned("cifar10_nfe_paper")
    counted = {
        cell.label: waiting._evaluations(cell) for cell in plan.cells if cell.sampler.nfe() is None
    }
    assert counted == {"DDPM": 1000, "Improved DDPM": 4000}


@pytest.mark.parametrize("name", PAPERS)
def test_each_asset_is_one_that_the_catalogue_has_and_each_command_is_named_once(name, untried):
    plan = planned(name)
    told = estimate_waiting(plan, CPU)
    for cell in plan.cells:
        if cell.card.asset is not None:
            asset = find_asset(cell.card.asset)
            way = f"fetch {cell.card.asset}" if asset.url else f"add {cell.card.asset} FILE"
            assert cell.pending.command == f"cmbench assets {way}"
        assert cell.pending.command in told.commands
    assert told.commands["cmbench assets fetch inception-2015-12-05"] == len(plan.cells)
    data = "images=PATH" if name.startswith("imagenet") else "cifar10=PATH"
    assert any(data in command for command in told.commands)


@pytest.mark.parametrize("name", PAPERS)
def test_what_is_published_has_a_cell_to_stand_beside(name):
    """Each number that a card prints for its own sampler is at an NFE that the suite spends."""
    plan = planned(name)
    spent = {}
    for cell in plan.cells:
        spent.setdefault(cell.card.full_name, set()).add(waiting._evaluations(cell))
    for cell in plan.cells:
        first = [p for p in cell.card.card.published[:2] if p.metric == "fid"]
        assert all(p.nfe in spent[cell.card.full_name] for p in first), cell.label


LATE = """\
import torch
from cmbench.api import Denoiser, Model
__all__ = ["Late"]
class _D(Denoiser):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.net = torch.nn.Conv2d(1, 1, 3, padding=1)
    def forward(self, x, sigma, labels=None):
        return self.net(x.float())
class Late(Model):
    sampler = {"name": "euler", "steps": 4}
    def build(self):
        return _D()
"""
SUITE = """\
suite: late
dataset: digits
images: {count: 30}
features: pixels
metrics: [frechet_distance]
runs:
  - {model: late/one, sampler: euler, steps: [2, 4]}
  - {model: late/two, sampler: euler, steps: [3]}
  - {model: oracle/gaussian, sampler: euler, steps: [2]}
"""
CARDS = """\
one: {weights: {asset: late-one}, shape: [1, 8, 8]}
two: {weights: {asset: late-two}, shape: [1, 8, 8]}
"""
ASSETS = """\
late-one: {url: https://example.org/one, file: one.bin, licence: "-", citation: "-"}
late-two: {page: https://example.org/two, file: two.bin, licence: "-", citation: "-"}
"""


@pytest.fixture
def late(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "late.py").write_text(LATE)
    (tmp_path / "models" / "late.cards.yaml").write_text(CARDS)
    (tmp_path / "assets.yaml").write_text(ASSETS)
    (tmp_path / "late.yaml").write_text(SUITE)
    return tmp_path


def test_the_plan_shows_what_waits_beside_what_runs(late):
    done = CliRunner().invoke(app, ["plan", "late.yaml", "--json"])
    plan = json.loads(done.stdout)
    told = plan["waiting"]
    assert (told["cells"], told["evaluations"]) == (3, 30 * (2 + 4 + 3))
    assert told["seconds"] > 0
    assert told["bytes"] == 3 * 30 * 64 * (1 + 4)
    assert told["commands"] == {
        "cmbench assets fetch late-one": 2,
        "cmbench assets add late-two FILE": 1,
    }
    # What can run now is counted as before, apart.
    assert plan["evaluations"] == 30 * 2
    shown = CliRunner().invoke(app, ["plan", "late.yaml"]).stdout
    assert "3 cells are pending: 270 network evaluations (about " in shown
    assert "  cmbench assets fetch late-one    # 2 cells\n" in shown


def test_a_run_that_only_waits_ends_well_and_strict_says_so(late):
    text = SUITE.replace("  - {model: oracle/gaussian, sampler: euler, steps: [2]}\n", "")
    (late / "late.yaml").write_text(text)
    done = CliRunner().invoke(app, ["run", "late.yaml", "--json", "--quiet"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["pending"] == 3
    records = read_records(late / "results" / "late")
    assert [r.status for r in records] == ["pending"] * 3
    assert {r.command for r in records} == {
        "cmbench assets fetch late-one",
        "cmbench assets add late-two FILE",
    }
    strict = CliRunner().invoke(app, ["run", "late.yaml", "--quiet", "--strict", "--no-report"])
    assert strict.exit_code == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_s_run_without_network_leaves_every_cell_pending(name, tmp_path):
    done = CliRunner().invoke(app, ["run", name, "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["failed"]) == (0, 0)
    board = (tmp_path / "results" / name / "leaderboard.md").read_text("utf-8")
    records = read_records(tmp_path / "results" / name)
    assert len(records) == summary["pending"]
    assert all(r.command and f"`{r.command}`" in board for r in records)
