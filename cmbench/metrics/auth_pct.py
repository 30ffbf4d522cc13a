"""AuthPct: the percentage of generated images that are not near-copies (Alaa et al., 2022).

A generated image is authentic if it is farther from its nearest training image t than t is from
its own nearest neighbour in the training set (https://arxiv.org/abs/2102.08921). The reference is
the training set.
"""

from dataclasses import replace
from typing import ClassVar

from typing_extensions import override

from cmbench.metrics._rows import feature_rows, reference_features, reference_rows
from cmbench.metrics.base import Features, Metric, Reference, Score
from cmbench.metrics.intervals.wilson import share_score
from cmbench.metrics.neighbours.search import nearest, radii_of

__all__ = ["AuthPct"]


class AuthPct(Metric):
    """Percentage of generated images that are authentic."""

    title: ClassVar[str] = "AuthPct"
    aliases: ClassVar[tuple[str, ...]] = ("authpct", "authenticity")
    higher_is_better: ClassVar[bool] = True
    bounds: ClassVar[tuple[float | None, float | None]] = (0.0, 100.0)
    outputs: ClassVar[tuple[str, ...]] = ("auth_pct",)
    least: ClassVar[int] = 1

    @override
    def scores(self, generated: Features, reference: Reference | None) -> dict[str, Score]:
        """Returns the percentage with Wilson's interval."""
        rows = feature_rows(generated, "pool", least=1)
        other = reference_rows(reference, "pool", least=2, width=rows.shape[1])
        spacing = radii_of(reference_features(reference), other, "pool", 1)
        distances, index = nearest(rows, other)
        hits = int((distances > spacing[index]).sum())
        n = len(rows)
        share = share_score(hits, n, count=n, details={"reference_count": float(len(other))})
        low, high = share.interval or (0.0, 1.0)
        return {
            "auth_pct": replace(
                share,
                value=100 * share.value,
                error=100 * (share.error or 0.0),
                interval=(100 * low, 100 * high),
            )
        }
