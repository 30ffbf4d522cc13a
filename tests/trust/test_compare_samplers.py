"""Cells of one label are told apart by their sampler, or not matched at all."""

import pytest
import torch

from cmbench.audit.compare import compare_runs
from cmbench.core.errors import UserError
from cmbench.engine.context import JobContext
from cmbench.record.schema import Record, ScoreRecord
from cmbench.store.store import Store

A = {"ddim": 8.5685, "dpmpp_2m": 3.0607, "euler": 5.4887, "unipc": 0.7628}
B = {"ddim": 7.6780, "dpmpp_2m": 2.6196, "euler": 4.1516, "unipc": 0.7628}


def _write(folder, cells):
    """Records of one label, seed and NFE; `cells` holds (sampler's specification, value)."""
    (folder / "records").mkdir(parents=True)
    for i, (sampler, value) in enumerate(cells):
        score = ScoreRecord(
            name="frechet_distance", title="FD", value=value, error=0.1, count=100,
            higher_is_better=False, fingerprint="f" * 64, protocol={},
        )  # fmt: skip
        record = Record(
            suite="s", suite_version=1, cell=f"{i:016x}", status="done", label="oracle",
            model="oracle/gaussian", family="oracle", sampler=sampler, nfe=4, seed=0, images=100,
            scores=[score],
        )  # fmt: skip
        (folder / "records" / f"{i:016x}.json").write_text(record.model_dump_json())


def _compared(tmp_path, one, two):
    _write(tmp_path / "a", one)
    _write(tmp_path / "b", two)
    context = JobContext(Store(tmp_path / "store"), torch.device("cpu"))
    return compare_runs(tmp_path / "a", tmp_path / "b", context)


def test_four_samplers_under_one_label_are_matched_each_with_its_own(tmp_path):
    one = [({"name": name, "rho": 7.0}, value) for name, value in A.items()]
    two = [({"name": name, "rho": 6.5}, value) for name, value in reversed(B.items())]
    found = _compared(tmp_path, one, two)
    assert not found.only_a
    assert not found.only_b
    told = sorted(row.difference for row in found.rows)
    assert told == pytest.approx(sorted(A[name] - B[name] for name in A), abs=1e-12)


def test_equal_specifications_go_before_equal_names(tmp_path):
    one = [({"name": "heun", "rho": 7.0}, 5.0), ({"name": "heun", "rho": 5.0}, 2.0)]
    found = _compared(tmp_path, one, list(reversed(one)))
    assert [row.difference for row in found.rows] == [0.0, 0.0]


def test_cells_that_nothing_tells_apart_are_not_matched(tmp_path):
    one = [({"name": "heun", "rho": 7.0}, 5.0), ({"name": "heun", "rho": 5.0}, 2.0)]
    two = [({"name": "heun", "rho": 6.0}, 5.0), ({"name": "heun", "rho": 4.0}, 2.0)]
    with pytest.raises(UserError, match="no cell in common"):
        _compared(tmp_path, one, two)
