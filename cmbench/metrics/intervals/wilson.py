"""Wilson's interval for a proportion (Wilson, 1927): never empty, never outside [0, 1].

For a proportion p of n probes its centre and half width are

    [p + z^2 / (2 n)] / (1 + z^2 / n)                                                           (1)
    z [p (1 - p) / n + z^2 / (4 n^2)]^(1/2) / (1 + z^2 / n)                                     (2)
"""

import math

from cmbench.metrics.base import Score

__all__ = ["share_score"]

_Z = 1.959963984540054


def share_score(hits: int, probes: int, *, count: int, details: dict[str, float]) -> Score:
    """Returns the proportion hits / probes, its binomial error and Wilson's 95% interval."""
    share = hits / probes
    centre = (share + _Z**2 / (2 * probes)) / (1 + _Z**2 / probes)  # Equation 1.
    spread = math.sqrt(share * (1 - share) / probes + _Z**2 / (4 * probes**2))
    spread *= _Z / (1 + _Z**2 / probes)  # Equation 2.
    error = math.sqrt(share * (1 - share) / probes)
    interval = (max(min(centre - spread, share), 0.0), min(max(centre + spread, share), 1.0))
    return Score(share, error, interval, count, details)
