"""Wilson's interval of a share (Wilson, 1927): never empty, never outside [0, 1]."""

import math

from cmbench.metrics.base import Score

__all__ = ["share_score"]

_Z = 1.959963984540054


def share_score(hits: int, probes: int, *, count: int, details: dict[str, float]) -> Score:
    """The share hits / probes with its binomial error and Wilson's 95% interval."""
    share = hits / probes
    centre = (share + _Z**2 / (2 * probes)) / (1 + _Z**2 / probes)
    spread = math.sqrt(share * (1 - share) / probes + _Z**2 / (4 * probes**2))
    spread *= _Z / (1 + _Z**2 / probes)
    error = math.sqrt(share * (1 - share) / probes)
    interval = (max(min(centre - spread, share), 0.0), min(max(centre + spread, share), 1.0))
    return Score(share, error, interval, count, details)
