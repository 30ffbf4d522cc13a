"""A claim about several labels is not judged before each of them has a number."""

from cmbench.record.schema import Record, ScoreRecord
from cmbench.stats.findings import Cells, Finding, judge


def record(label: str, value: float) -> Record:
    score = ScoreRecord(name="frechet_distance", title="FD", value=value, error=0.1, count=10,
                        interval=(value - 0.2, value + 0.2), higher_is_better=False,
                        fingerprint="f", protocol={})  # fmt: skip
    return Record(suite="s", suite_version=1, cell=label, status="done", label=label,
                  model=f"edm/{label}", family="edm", nfe=1, seed=0, images=10,
                  scores=[score])  # fmt: skip


def test_a_label_without_a_number_leaves_the_claim_unmeasured():
    finding = Finding(claim="a is best", better=Cells(label=["a"]), worse=Cells(label=["b", "c"]))
    some = [record("a", 1), record("b", 5)]
    assert judge(finding, some).verdict == "not measured"
    assert judge(finding, [*some, record("c", 5)]).verdict == "confirmed"
