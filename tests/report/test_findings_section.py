"""Findings of a suite stand in the table's text and on the page with their verdicts."""

from pathlib import Path

from cmbench.record.schema import Record, ScoreRecord
from cmbench.report.write import write_report

SUITE = """\
suite: toy
title: Toys
findings:
  - claim: "<b> beats |A|"
    better: {label: B}
    worse: {label: A, nfe: 1}
  - claim: A needs no second step
    better: {label: A, nfe: 1}
    worse: {label: A, nfe: 2}
  - claim: nobody measured this
    better: {label: C}
    worse: {label: A}
"""


def _record(label: str, nfe: float, value: float) -> Record:
    score = ScoreRecord(
        name="frechet_distance", title="FD-toy", value=value, error=0.1, count=100, key="0" * 64,
        interval=(value - 0.2, value + 0.2), higher_is_better=False, fingerprint="a" * 64,
        protocol={},
    )  # fmt: skip
    return Record(
        suite="toy", suite_version=1, cell=f"{label}{nfe:g}", status="done", label=label,
        model="m/c", family="m", nfe=nfe, seed=0, images=100, scores=[score],
    )  # fmt: skip


def test_claims_are_told_with_verdict_and_grounds(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "suite.yaml").write_text(SUITE)
    for record in (_record("A", 1, 3.0), _record("A", 2, 2.0), _record("B", 1, 1.0)):
        (tmp_path / "records" / f"{record.cell}.json").write_text(record.model_dump_json())
    write_report(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    grounds = "B at 1 NFE against A at 1 NFE: better by 2 ± 0.28 in FD-toy"
    assert f"| &lt;b&gt; beats \\|A\\| | confirmed | {grounds} |" in text
    assert "| A needs no second step | contradicted |" in text
    assert "| nobody measured this | not measured |" in text
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt; beats |A|" in page
    assert "verdict-contradicted" in page
