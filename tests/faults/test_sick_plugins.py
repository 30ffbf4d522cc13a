"""Plugins that raise, hang, die, return rubbish or meddle: each fails alone and says why."""

import json
from pathlib import Path

import pytest
from forked import SUITE, fresh, outputs, same

PLUGIN = '''\
"""Sick: does what its name says until a file called `healed` is there."""
import os, random, sys, time
from pathlib import Path
import numpy, torch
from cmbench.api import Denoiser, Model
__all__ = ["Sick"]
class _D(Denoiser):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.net = torch.nn.Identity()
    def forward(self, x, sigma, labels=None):
        x = self.net(x)
        if Path("healed").exists():
            return 0.1 * x
        {fault}
class Sick(Model):
    sampler = {{"name": "euler"}}
    def build(self):
        {build}
        return _D()
'''
FAULTS = {
    "raises": ("raise KeyError('a fault of the plugin')", "KeyError: 'a fault of the plugin'"),
    "file": ("open('/no/such/weights')", "FileNotFoundError"),
    "exits": ("sys.exit(0)", "SystemExit: 0"),
    "memory": ("raise MemoryError('out of memory')", "MemoryError: out of memory"),
    "recursion": ("return self.forward(x, sigma)", "RecursionError"),
    "nothing": ("return None", "NoneType"),
    "nan": ("return x * float('nan')", "NaN or infinity"),
    "infinite": ("return x * float('inf')", "NaN or infinity"),
    "shape": ("return torch.zeros(len(x), 1, 4, 4)", "must match the size"),
    "wide": ("return x.repeat(1, 3, 1, 1)", "shape"),
}


def _suite(names) -> str:
    head, runs = SUITE.split("runs:\n")
    oracle = runs[runs.index("  - model: oracle") :]
    sick = "".join(f"  - {{model: {n}, label: {n}, nfe: [1]}}\n" for n in names)
    return f"{head}runs:\n{sick}{oracle}"


def _folder(path, faults, build="pass"):
    folder = fresh(path, _suite(faults))
    (folder / "models").mkdir()
    for name, fault in faults.items():
        text = PLUGIN.format(fault=fault, build=build)
        (folder / "models" / f"{name}.py").write_text(text)
    return folder


def _records(folder):
    files = (folder / "results" / "tiny" / "records").glob("*.json")
    return {
        r["label"] + str(r["nfe"] or ""): r for r in (json.loads(f.read_text()) for f in files)
    }


def test_each_fault_fails_alone_with_its_reason_and_is_tried_again(forks, tmp_path):
    folder = _folder(tmp_path / "a", {name: fault for name, (fault, _) in FAULTS.items()})
    run = forks.run(folder)
    assert run.code == 1, run.told
    assert "Traceback" not in run.told
    records = _records(folder)
    for name, (_, reason) in FAULTS.items():
        assert records[name]["status"] == "failed"
        assert reason in records[name]["reason"], records[name]["reason"]
        assert records[name]["scores"] == []
    assert [records[f"oracle{n}.0"]["status"] for n in (1, 2)] == ["done", "done"]
    log = records["raises"]["reason"].partition("(log: ")[2].rstrip(")")
    assert "a fault of the plugin" in Path(log).read_text()
    (folder / "healed").touch()
    again = forks.run(folder)
    assert again.code == 0, again.told
    assert all(r["status"] == "done" for r in _records(folder).values())
    for n in (1, 2):
        assert _records(folder)[f"oracle{n}.0"] == records[f"oracle{n}.0"]


def test_global_random_state_set_by_a_plugin_moves_no_other_number(forks, tmp_path):
    meddle = (
        "torch.manual_seed(1); numpy.random.seed(1); random.seed(1); "
        "torch.set_grad_enabled(True); torch.rand(7); return 0.5 * x"
    )
    folder = _folder(tmp_path / "a", {"meddler": meddle})
    alone = _folder(tmp_path / "b", {})
    for chosen in (folder, alone):
        run = forks.run(chosen)
        assert run.code == 0, run.told
    mine, theirs = outputs(folder), outputs(alone)
    same({n: mine[n] for n in theirs}, theirs)


def test_a_random_adapter_is_told_apart_from_its_neighbours_only(forks, tmp_path):
    """One that draws from the global generator can't repeat itself; the others are untouched."""
    folder = _folder(tmp_path / "a", {"noisy": "return 0.5 * x + torch.randn_like(x)"})
    alone = _folder(tmp_path / "b", {})
    for chosen in (folder, alone):
        assert forks.run(chosen).code == 0
    mine, theirs = outputs(folder), outputs(alone)
    same({n: mine[n] for n in theirs}, theirs)


def test_a_missing_package_at_import_is_told_before_any_work(forks, whole, tmp_path):
    folder = fresh(tmp_path / "a", _suite(["needy"]))
    (folder / "models").mkdir()
    (folder / "models" / "needy.py").write_text('"""Needy."""\nimport no_such_package\n')
    run = forks.run(folder)
    assert run.code == 2
    assert "No module named 'no_such_package'" in run.told
    assert "needy.py" in run.told
    assert "Traceback" not in run.told
    assert not list((folder / "cache" / "objects").glob("*/*/*"))


def test_a_missing_package_at_build_fails_its_cells_alone(forks, tmp_path):
    folder = _folder(tmp_path / "a", {"late": "return x"}, build="import no_such_package")
    run = forks.run(folder)
    assert run.code == 1, run.told
    records = _records(folder)
    assert "No module named 'no_such_package'" in records["late"]["reason"]
    assert records["oracle2.0"]["status"] == "done"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_model_that_hangs_or_dies_is_tried_again_then_failed_with_its_log(forks, tmp_path):
    faults = {
        "hangs": "time.sleep(600)",
        "dies": "os.kill(os.getpid(), 9)",
        "once": "Path('healed').touch(); os._exit(3)",
    }
    folder = _folder(tmp_path / "a", {n: faults[n] for n in ("hangs", "dies")})
    run = forks.run(folder, "--timeout", "20")
    assert run.code == 1, run.told
    assert run.told.count("it is tried again") == 4
    records = _records(folder)
    assert "no sign of life for 20 s, 3 times (log: " in records["hangs"]["reason"]
    log = records["hangs"]["reason"].partition("(log: ")[2].rstrip(")")
    assert "in forward" in Path(log).read_text()
    assert "its process died (SIGKILL), 3 times" in records["dies"]["reason"]
    assert [records[f"oracle{n}.0"]["status"] for n in (1, 2)] == ["done", "done"]
    other = _folder(tmp_path / "b", {"once": faults["once"]})
    assert forks.run(other, "--timeout", "20").code == 0
    (folder / "healed").touch()
    assert forks.run(folder, "--timeout", "20").code == 0
