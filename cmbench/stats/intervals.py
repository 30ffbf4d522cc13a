"""Normal intervals, and seeds of one cell combined."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = ["Estimate", "combine_seeds", "normal_interval"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its standard error and its 95% interval."""

    value: float
    error: float | None
    interval: tuple[float, float] | None
    seeds: int


def normal_interval(value: float, error: float, level: float = 0.95) -> tuple[float, float]:
    """The interval value +- z error, z the normal quantile of `level` (0 to 1)."""
    reach = float(stats.norm.ppf(0.5 + level / 2)) * error
    return value - reach, value + reach


def combine_seeds(
    values: Sequence[float], errors: Sequence[float | None] | None = None
) -> Estimate:
    """The mean over seeds, never the minimum.

    With several seeds the error is the spread over them and Student's t gives the interval. It
    holds sampling and, where each seed trains anew, training. With one seed its own error stands.

    Raises:
        ValueError: If there are no values.
    """
    if not values:
        raise ValueError("no values to combine")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        own = errors[0] if errors else None
        return Estimate(mean, own, None if own is None else normal_interval(mean, own), 1)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    error = spread / math.sqrt(n)
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return Estimate(mean, error, (mean - reach, mean + reach), n)
