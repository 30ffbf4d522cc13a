"""Suites: every mistake has its file, line, key and nearest name; plans are stable."""

from pathlib import Path

import pytest

from cmbench.core.errors import UserError
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite

GOOD = """\
suite: tiny
dataset: digits
images: {count: 24, shard: 8}
features: pixels
metrics: [frechet_distance, kid]
runs:
  - model: oracle/gaussian
    nfe: [1, 3]
  - model: oracle/consistency
    sampler: multistep
    nfe: [1, 2]
"""


def write(folder: Path, text: str) -> str:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return str(path)


def plan(folder, text=GOOD):
    suite, source = read_suite(write(folder, text))
    return make_plan(suite, source)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nfe: [1, 3]", "nffe: [1, 3]", r"tiny\.yaml:8: runs\[0\]\.nffe: .*did you mean 'nfe'"),
        ("nfe: [1, 3]", "nfe: [1, 4]", r"tiny\.yaml:8: .*can't spend exactly 4(?s:.*)3 or 5"),
        ("nfe: [1, 3]", "nfe: [0]", r"tiny\.yaml:8: .*at least 1"),
        ("nfe: [1, 3]", "nfe: many", r"tiny\.yaml:8: runs\[0\]\.nfe"),
        ("count: 24", "count: 1", r"tiny\.yaml:3: images\.count: .*greater than or equal to 2"),
        ("count: 24", "count: lots", r"tiny\.yaml:3: images\.count: .*valid integer"),
        ("oracle/gaussian", "oracel/gaussian", r"tiny\.yaml:7: .*Did you mean 'oracle'"),
        ("oracle/gaussian", "oracle/gausian", r"tiny\.yaml:7: .*Did you mean 'gaussian'"),
        ("sampler: multistep", "sampler: multstep", r"tiny\.yaml:10: .*Did you mean 'multistep'"),
        ("[frechet_distance, kid]", "[frechet]", r"tiny\.yaml:5: .*Did you mean 'frechet_dist"),
        ("features: pixels", "features: pixel", r"Did you mean 'pixels'"),
        ("features: pixels\n", "", r"tiny\.yaml"),
        ("dataset: digits\n", "", r"tiny\.yaml:1: key 'dataset' is missing"),
        ("dataset: digits", "dataset: digit", r"Did you mean 'digits'"),
        ("    sampler: multistep\n", "    sampler: {name: multistep, sigma: 3}\n",
         r"tiny\.yaml:10: .*unknown key 'sigma'; did you mean 'sigmas'"),
        ("    nfe: [1, 2]", "    nfe: [1, 2]\n    steps: 3", r"give nfe or steps, not both"),
        ("suite: tiny", "suite: ../etc", r"tiny\.yaml:1: suite"),
        ("  - model: oracle/consistency", "  - model: oracle/gaussian\n    train: {seed: 1}",
         r"no recipe"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_stands(tmp_path, old, new, message):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if old == "features: pixels\n":
        text = text.replace(
            "[frechet_distance, kid]", "[{name: inception_score, features: pixels}]"
        )
        message = r"reads layer 'logits', which 'pixels' does not give"
    with pytest.raises(UserError, match=message):
        plan(tmp_path, text)


def test_missing_suite_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'digits_nfe'"):
        read_suite("digits_nfee")
    with pytest.raises(UserError, match="no such suite file"):
        read_suite("nowhere/else.yaml")


def test_what_does_not_change_numbers_does_not_change_keys(tmp_path):
    first = plan(tmp_path)
    for old, new in [
        ("suite: tiny", "suite: other"),
        ("  - model: oracle/g", "  - label: x\n    model: oracle/g"),
    ]:
        again = plan(tmp_path, GOOD.replace(old, new))
        assert [c.id for c in again.cells] == [c.id for c in first.cells]
        assert set(again.jobs) == set(first.jobs)
    batched = plan(tmp_path, GOOD + "batch: 7\n")
    assert set(batched.jobs) == set(first.jobs)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("count: 24", "count: 25"),
        ("shard: 8", "shard: 8, seeds: 1"),
        ("nfe: [1, 3]", "nfe: [5, 7]"),
    ],
)
def test_what_changes_numbers_changes_ids(tmp_path, old, new):
    first, again = plan(tmp_path), plan(tmp_path, GOOD.replace(old, new))
    changed = {c.id for c in again.cells} - {c.id for c in first.cells}
    assert changed


def test_shards_cover_the_images_once(tmp_path):
    made = plan(tmp_path, GOOD.replace("count: 24", "count: 21"))
    for cell in made.cells:
        spans = [(made.jobs[s].spec["first"], made.jobs[s].spec["count"]) for s in cell.shards]
        assert [i for a, n in spans for i in range(a, a + n)] == list(range(21))


def test_twins_are_refused(tmp_path):
    with pytest.raises(UserError, match="same work"):
        plan(tmp_path, GOOD.replace("nfe: [1, 3]", "nfe: [3, 3]"))


def test_the_bundled_suites_plan():
    for path in sorted((Path(__file__).parents[2] / "suites").glob("*.yaml")):
        suite, source = read_suite(str(path))
        assert make_plan(suite, source).cells
