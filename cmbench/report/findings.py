"""Findings with their verdicts, for people."""

from collections.abc import Sequence

from cmbench.report.markdown import plain
from cmbench.stats.findings import Comparison, Judgement

__all__ = ["evidence", "findings_markdown"]


def evidence(judgement: Judgement) -> str:
    """The pair that is hardest for the claim, in words."""
    pair = judgement.hardest
    if pair is None:
        return "no such cells under one protocol"
    half = 1.96 * pair.error
    scores = [r.score(judgement.finding.score) for r in (pair.better, pair.worse)]
    title = scores[0].title if scores[0] else judgement.finding.score
    return (
        f"{_cell(pair, better=True)} against {_cell(pair, better=False)}: better by "
        f"{pair.gain:.3g} ± {half:.2g} in {title}"
        + (f" (the hardest of {judgement.pairs} pairs)" if judgement.pairs > 1 else "")
    )


def findings_markdown(judgements: Sequence[Judgement]) -> str:
    """A section of a table's text; empty where the suite states no findings."""
    if not judgements:
        return ""
    rows = [
        f"| {plain(j.finding.claim)} | {j.verdict} | {plain(evidence(j))} |" for j in judgements
    ]
    head = "\n## Findings\n\n| claim | verdict | on what grounds |\n|---|---|---|\n"
    note = (
        "Confirmed or contradicted: beyond 1.96 standard errors of the difference, the two scores "
        "taken as independent. One training run each: the training's own spread is not in it."
    )
    return head + "\n".join(rows) + f"\n\n{note}\n"


def _cell(pair: Comparison, *, better: bool) -> str:
    record = pair.better if better else pair.worse
    return f"{record.label} at {record.nfe:g} NFE"
