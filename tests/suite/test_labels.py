"""Labels, axes and findings of a suite are checked when it is planned, before anything runs."""

import json

import pytest

from cmbench.core.errors import UserError
from cmbench.suite.planner import make_plan, plan_of_tag
from cmbench.suite.spec import read_suite

HEAD = """\
suite: small
dataset: digits
images: {count: 8, seeds: [0, 1]}
features: pixels
metrics: [kid]
runs:
"""
TRAINED = "  - {{model: consistency/digits, label: {label}, train: {train}, nfe: 1}}\n"


@pytest.fixture
def planned(tmp_path):
    def plan(runs, findings=""):
        path = tmp_path / "small.yaml"
        path.write_text(HEAD + runs + findings)
        return make_plan(*read_suite(str(path)))

    return plan


def labels(plan):
    return list(dict.fromkeys(cell.label for cell in plan.cells))


def test_placeholders_name_axes_recipe_and_sampler(planned):
    plan = planned(
        TRAINED.format(label='"{{{distance} {optimiser.lr} {sampler} {batch}}}"',
                       train="{distance: [l1, l2], optimiser.lr: [0.1, 0.2]}")
    )  # fmt: skip
    batch = plan.cells[0].network.recipe.batch
    wanted = [f"{{{d} {lr} multistep {batch}}}" for d in ("l1", "l2") for lr in (0.1, 0.2)]
    assert [text.replace("onestep", "multistep") for text in labels(plan)] == wanted
    assert plan.cells[0].axes == {"distance": "l1", "optimiser.lr": 0.1}


@pytest.mark.parametrize(
    "label", ["CD {distanse}", "{model[a]}", "{sampler.x}", "{", "{model:>99}"]
)
def test_an_unknown_placeholder_is_refused_with_its_line(planned, label):
    with pytest.raises(UserError, match=r"small.yaml:7: .*unknown placeholder") as told:
        planned(TRAINED.format(label=json.dumps(label), train="{distance: l1}"))
    assert "{sampler}" in told.value.expected


def test_samplers_of_one_run_are_an_axis_by_what_tells_them_apart(planned):
    plan = planned(
        "  - {model: oracle/gaussian, label: g, nfe: 3,"
        " sampler: [{name: heun, rho: 5}, {name: heun, rho: 7}]}\n"
        '  - {model: oracle/gaussian, label: "{sampler} {sampler.rho}", nfe: [2, 4],'
        " sampler: [euler, dpmpp_2m]}\n"
    )
    assert [c.axes for c in plan.cells if c.label == "g" and c.seed == 0] == [
        {"sampler.rho": 5.0}, {"sampler.rho": 7.0},
    ]  # fmt: skip
    assert labels(plan)[1:] == ["euler 7.0", "dpmpp_2m 7.0"]
    assert plan.cells[-1].axes == {"sampler": "dpmpp_2m"}


def test_values_of_one_name_are_told_apart_by_what_differs(planned):
    plan = planned(
        TRAINED.format(label="CT", train="{objective: [{name: ct, s0: 2}, {name: ct, s0: 3}]}")
    )
    assert [c.axes["objective"] for c in plan.cells[::2]] == ["ct(s0=2)", "ct(s0=3)"]


def test_trainings_of_one_thing_share_a_label_without_one_given(planned):
    plan = planned("  - {model: consistency/digits, train: {seed: [0, 1, 2]}, nfe: 1}\n")
    assert labels(plan) == ["consistency/digits"]
    assert sorted({c.axes["seed"] for c in plan.cells}) == [0, 1, 2]


@pytest.mark.parametrize(
    ("sampler", "nfe"), [("euler", "3"), ("{name: probability_flow_rk45, rtol: 0.1}", "")]
)
def test_two_cells_of_one_name_are_refused(planned, sampler, nfe):
    spent = f", nfe: {nfe}" if nfe else ""
    with pytest.raises(UserError, match="two cells are called 'a' with the same axes"):
        planned(
            f"  - {{model: oracle/gaussian, label: a, sampler: {sampler}{spent}}}\n"
            f"  - {{model: oracle/digits, label: a, sampler: {sampler}{spent}}}\n"
        )


def test_a_finding_about_what_no_run_has_is_refused_with_the_nearest(planned):
    runs = "  - {model: oracle/gaussian, label: exact, sampler: heun, nfe: [1, 3], tags: quick}\n"
    claim = (
        "findings:\n  - {{claim: x, better: {{label: {}, nfe: {}}}, worse: {{label: exact}}{}}}\n"
    )
    with pytest.raises(UserError, match=r"small.yaml:9: .*'exakt'.*did you mean 'exact'"):
        planned(runs, claim.format("exakt", 1, ""))
    with pytest.raises(UserError, match="5 evaluations"):
        planned(runs, claim.format("exact", 5, ", score: kid"))
    with pytest.raises(UserError, match="score 'fid'") as told:
        planned(runs, claim.format("exact", 3, ", score: fid"))
    assert told.value.expected == "one of: kid"
    plan = planned(runs, claim.format("exact", 3, ", score: kid"))
    assert plan_of_tag(plan, "quick").left_out == frozenset()
