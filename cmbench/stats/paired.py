"""Differences between two sets of images made from the same noise, sample by sample.

The error of A - B is sd(psi_A - psi_B) / sqrt(N) with psi the per-sample influence terms: noise
that both share cancels. Many comparisons are corrected by Holm (1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

__all__ = ["Difference", "holm", "paired_difference"]


@dataclass(frozen=True)
class Difference:
    """A - B with its error, 95% interval and two-sided p-value."""

    value: float
    error: float
    interval: tuple[float, float]
    p: float


def paired_difference(
    value_a: float, terms_a: NDArray[np.float64], value_b: float, terms_b: NDArray[np.float64]
) -> Difference:
    """The difference of two scores whose row i came from the same noise.

    Raises:
        ValueError: If the two have different or fewer than 2 terms.
    """
    if terms_a.shape != terms_b.shape or len(terms_a) < 2:
        raise ValueError(f"{terms_a.shape} and {terms_b.shape} terms can't be paired")
    value = value_a - value_b
    error = float(np.std(terms_a - terms_b, ddof=1) / np.sqrt(len(terms_a)))
    p = float(2 * stats.norm.sf(abs(value) / error)) if error > 0 else float(value == 0)
    return Difference(value, error, (value - 1.96 * error, value + 1.96 * error), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: reject those at most 0.05 for a family rate of 5%."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
