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
