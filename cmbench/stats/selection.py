"""Bias of a number that was chosen as the best of several, and when there is none.

The least of k scores that differ by noise alone is too low by c_k standard errors, c_k the
expected largest of k standard normal draws (c_1 = 0, c_2 = 0.56, c_10 = 1.54, c_100 = 2.51).
Scored again on seeds that the choice did not see, it is not: the noise there is drawn anew.
"""

import math

from scipy import integrate, stats

__all__ = ["expected_gain"]


def expected_gain(tried: int) -> float:
    """c_k: how many standard errors the best of `tried` equal configurations looks better.

    Raises:
        ValueError: If none was tried.
    """
    if tried < 1:
        raise ValueError("at least one configuration must have been tried")
    if tried == 1:
        return 0.0

    def density(x: float) -> float:
        log = math.log(tried) + (tried - 1) * float(stats.norm.logcdf(x))
        return x * math.exp(log) * float(stats.norm.pdf(x))

    return float(integrate.quad(density, -10, 12, limit=200)[0])
