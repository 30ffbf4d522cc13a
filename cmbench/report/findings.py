"""Findings with their verdicts, for people."""

from collections.abc import Sequence

from cmbench.report.escape import plain
from cmbench.report.spread import spread_of
from cmbench.stats.findings import Comparison, Judgement

__all__ = ["FINDINGS_NOTE", "evidence", "findings_markdown", "spread"]

FINDINGS_NOTE = (
    "Confirmed: every pair lies beyond its error (one-sided 2.5%, Student's t where seeds or "
    "trainings are combined, the two scores taken as independent). Contradicted: some pair surely "
    "goes the other way, corrected for the number of pairs. Each verdict is wrong on at most 2.5% "
    "of boards. Where it says one training, the training's own spread is not in it."
)


def evidence(judgement: Judgement) -> str:
    """The pair that is hardest for the claim, in words."""
    pair = judgement.hardest
    if pair is None:
        return "no such cells under one protocol"
    half = pair.gain - pair.interval[0]
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
        f"| {plain(j.finding.claim)} | {j.verdict} | {plain(evidence(j))} | {spread(j)} |"
        for j in judgements
    ]
    head = "| claim | verdict | on what grounds | spread in it |\n|---|---|---|---|"
    return "\n## Findings\n\n" + "\n".join([head, *rows]) + f"\n\n{FINDINGS_NOTE}\n"


def spread(judgement: Judgement) -> str:
    """Names the spread that the errors of the hardest pair include."""
    pair = judgement.hardest
    if pair is None:
        return "–"
    held = list(dict.fromkeys(spread_of(row) for row in (pair.better, pair.worse)))
    once = any(row.trainings == 1 and row.first.training for row in (pair.better, pair.worse))
    return " and ".join(held) + ("; one training" if once else "")


def _cell(pair: Comparison, *, better: bool) -> str:
    row = pair.better if better else pair.worse
    return f"{row.name} at {'?' if row.nfe is None else f'{row.nfe:g}'} NFE"
