"""Verdicts: confirmed, contradicted and undecided as the intervals say; never from a guess."""

import pytest
from pydantic import ValidationError

from cmbench.record.schema import Record, ScoreRecord
from cmbench.stats.findings import Finding, judge


def _cell(label: str, nfe: float, value: float, error: float = 0.1, **more: object) -> Record:
    score = ScoreRecord(
        name="frechet_distance", title="FD", value=value, error=error,
        interval=(value - 0.2, value + 0.2), count=100, higher_is_better=False,
        fingerprint=str(more.get("fingerprint", "a" * 64)), protocol={}, key="0" * 64,
    )  # fmt: skip
    return Record(
        suite="s", suite_version=1, cell=f"{label}-{nfe}", status="done", label=label,
        model="m/c", family="m", nfe=nfe, seed=0, images=100, scores=[score],
    )  # fmt: skip


CLAIM = Finding.model_validate(
    {"claim": "B beats A", "better": {"label": "B"}, "worse": {"label": "A", "nfe": [1, 2]}}
)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((5.0, 6.0, 1.0), "confirmed"),
        ((5.0, 1.2, 1.0), "undecided"),  # 0.2 better, error of the difference 0.141
        ((5.0, 0.5, 1.0), "contradicted"),
    ],
)
def test_the_hardest_pair_decides(values: tuple[float, float, float], verdict: str) -> None:
    one, two, challenger = values
    records = [
        _cell("A", 1, one),
        _cell("A", 2, two),
        _cell("A", 9, 0.0),
        _cell("B", 1, challenger),
    ]
    judgement = judge(CLAIM, records)
    assert judgement.verdict == verdict
    assert judgement.pairs == 2
    assert judgement.hardest is not None
    assert judgement.hardest.worse.nfe == (1 if one < two else 2)
    assert judgement.hardest.error == pytest.approx(0.02**0.5)


def test_what_was_not_measured_under_one_protocol_is_not_judged() -> None:
    assert judge(CLAIM, [_cell("A", 1, 5.0)]).verdict == "not measured"
    mixed = [_cell("A", 1, 5.0), _cell("B", 1, 1.0, fingerprint="b" * 64)]
    assert judge(CLAIM, mixed).verdict == "not measured"


def test_a_level_5_percent_test_rarely_confirms_what_is_equal() -> None:
    import numpy as np

    draw = np.random.default_rng(0)
    confirmed = 0
    for _ in range(2000):
        a, b = draw.normal(3.0, 0.1, 2)
        confirmed += judge(CLAIM, [_cell("A", 1, a), _cell("B", 1, b)]).verdict == "confirmed"
    assert confirmed / 2000 == pytest.approx(0.025, abs=0.011)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError):
        Finding.model_validate({"claim": "x", "better": {"label": "B"}, "wors": {"label": "A"}})


def _boards(seeds: int, pairs: int, gain: float, boards: int = 400) -> dict[str, float]:
    """Share of each verdict over simulated boards: B beats each of `pairs` models by `gain`."""
    import numpy as np

    draw = np.random.default_rng([seeds, pairs])
    names = [f"A{i}" for i in range(pairs)]
    claim = Finding.model_validate(
        {"claim": "x", "better": {"label": "B"}, "worse": {"label": names}}
    )
    found = {"confirmed": 0.0, "contradicted": 0.0, "undecided": 0.0}
    for _ in range(boards):
        values = draw.normal(3.0, 0.1, (pairs + 1, seeds))
        values[0] -= gain
        records = [
            _cell(label, 1, value).model_copy(update={"seed": s, "cell": f"{label}{s}"})
            for label, row in zip(["B", *names], values, strict=True)
            for s, value in enumerate(row)
        ]
        found[judge(claim, records).verdict] += 1 / boards
    return found


@pytest.mark.parametrize("pairs", [1, 10])
@pytest.mark.parametrize("seeds", [1, 5])
def test_of_equal_entries_at_most_one_claim_in_twenty_is_decided(seeds: int, pairs: int) -> None:
    # 400 boards: a share of 0.05 has itself a standard error of 0.011.
    assert _boards(seeds, pairs, 0.0)["undecided"] > 0.95 - 2 * 0.011


def test_more_seeds_confirm_a_true_gain_more_often() -> None:
    # A gain of 2.8 standard errors of a difference of single seeds: 80% by the normal's power.
    gain = 2.8 * 0.1 * 2**0.5
    one, five = (_boards(seeds, 1, gain)["confirmed"] for seeds in (1, 5))
    assert one == pytest.approx(0.80, abs=0.06)
    assert five > 0.99


def test_a_contradiction_counts_the_pairs() -> None:
    """2.2 standard errors the other way: enough for one pair, too little among ten."""
    away = 2.2 * 0.1 * 2**0.5
    claim = Finding.model_validate(
        {"claim": "x", "better": {"label": "B"}, "worse": {"label": [f"A{i}" for i in range(10)]}}
    )
    alone = Finding.model_validate(
        {"claim": "x", "better": {"label": "B"}, "worse": {"label": "A0"}}
    )
    records = [_cell("B", 1, 5.0), _cell("A0", 1, 5.0 - away)]
    assert judge(alone, records).verdict == "contradicted"
    records += [_cell(f"A{i}", 1, 5.0) for i in range(1, 10)]
    assert judge(claim, records).verdict == "undecided"
