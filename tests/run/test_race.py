"""A suite as a race: what is settled stops and says so, the rest has its official number."""

import json

import pytest
from tiny_suite import cmbench, fresh

SUITE = """\
suite: tiny
dataset: digits
images: {count: 1600, shard: 100}
features: digits_classifier
metrics: [frechet_distance, precision_recall]
runs:
  - {model: oracle/consistency, label: alike, sampler: multistep, nfe: [1, 2]}
  - {model: oracle/digits, label: apart, sampler: heun, nfe: [1, 19]}
"""


def _records(folder):
    files = (folder / "results" / "tiny" / "records").glob("*.json")
    found = [(json.loads(f.read_text()), f.read_bytes()) for f in files]
    return {(r["label"], r["sampler"].get("steps")): (r, text) for r, text in found}


@pytest.mark.slow
def test_settled_cells_wait_with_their_rank_and_a_plain_run_fills_them_in(tmp_path):
    folder = fresh(tmp_path / "a")
    (folder / "tiny.yaml").write_text(SUITE)
    done = cmbench(folder, "run", "tiny.yaml", "--race", "--no-report")
    assert done.returncode == 0, done.stderr
    raced = _records(folder)
    states = {key: record["status"] for key, (record, _) in raced.items()}
    assert states == {("alike", 1): "done", ("alike", 2): "done",
                      ("apart", 1): "pending", ("apart", 10): "pending"}  # fmt: skip
    told = json.loads((folder / "results" / "tiny" / "race.json").read_text())
    assert told["score"] == "frechet_distance"
    assert sorted(s["rank"] for s in told["settled"]) == [1, 4]
    for key, rank in ((("apart", 10), 1), (("apart", 1), 4)):
        record = raced[key][0]
        assert f"is settled, {rank} of 4, after" in record["reason"]
        assert record["command"] == "cmbench run tiny.yaml"
        assert record["scores"] == []
    spent = told["evaluations"]
    assert spent["race"] < spent["every cell in full"] == 1600 * (1 + 2 + 1 + 19)
    full = cmbench(folder, "run", "tiny.yaml", "--no-report")
    assert full.returncode == 0, full.stderr
    filled = _records(folder)
    assert {record["status"] for record, _ in filled.values()} == {"done"}
    ranked = sorted(filled, key=lambda key: _distance(filled[key][0]))
    assert (ranked[0], ranked[3]) == (("apart", 10), ("apart", 1))
    assert all(filled[key][1] == raced[key][1] for key in (("alike", 1), ("alike", 2)))
    again = cmbench(folder, "run", "tiny.yaml", "--race", "--no-report")
    assert again.returncode == 0, again.stderr
    assert {k: text for k, (_, text) in _records(folder).items()} == {
        k: text for k, (_, text) in filled.items()
    }


def test_a_race_over_a_cluster_is_refused(tmp_path):
    folder = fresh(tmp_path / "a")
    done = cmbench(folder, "run", "tiny.yaml", "--race", "--engine", "ray")
    assert done.returncode == 2
    assert "a race runs in one process" in done.stderr


def _distance(record):
    return next(s["value"] for s in record["scores"] if s["name"] == "frechet_distance")
