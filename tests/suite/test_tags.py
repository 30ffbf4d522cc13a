"""A suite's part by tag: what it leaves out stays as it is."""

from pathlib import Path

import pytest

from cmbench.core.errors import UserError
from cmbench.suite.planner import make_plan, plan_of_tag
from cmbench.suite.spec import read_suite

SUITE = """
suite: tagged
dataset: digits
images: {count: 8, shard: 4}
features: pixels
metrics: [frechet_distance]
runs:
  - {model: oracle/gaussian, label: slow, sampler: heun, nfe: 35}
  - {model: oracle/gaussian, label: fast, sampler: heun, nfe: [1, 3], tags: [quick]}
"""


def whole(tmp_path: Path):
    file = tmp_path / "tagged.yaml"
    file.write_text(SUITE)
    return make_plan(*read_suite(str(file)))


def test_a_tag_keeps_its_runs_and_knows_what_it_leaves(tmp_path):
    plan = whole(tmp_path)
    part = plan_of_tag(plan, "quick")
    assert [cell.label for cell in part.cells] == ["fast", "fast"]
    assert part.left_out == {cell.id for cell in plan.cells if cell.label == "slow"}
    assert set(part.jobs) < set(plan.jobs)
    assert part.suite is plan.suite


def test_an_unknown_tag_is_told_with_those_there_are(tmp_path):
    with pytest.raises(UserError, match="quick"):
        plan_of_tag(whole(tmp_path), "quik")
