"""Several measurements of one thing combined: its seeds, and its trainings.

Seeds are further draws of images from one network, so that the error of each already says how far
they lie apart. With values v_i and errors e_i of n seeds, their mean has the variance

    W = sum e_i^2 / n^2        what the errors explain
    B = max(0, s^2 / n - W)    what they don't: s is the standard deviation of the v_i

and the degrees of freedom (n - 1) ((W + B) / B)^2 of Satterthwaite (1946): a spread within the
errors gives the normal interval, one far beyond them Student's t with n - 1. Without errors, B
is s^2 / n and W is 0.

Trainings differ by more than the errors say, and nothing says beforehand by how much: Student's t
with n - 1 degrees of freedom over the means of the trainings, its variance the greater of s^2 / n
(which holds the sampling error too) and W.

An interval that is longer on one side stays so: each side's reach is the root of the sum of the
squares of the single reaches over n (MOVER; Zou and Donner 2008), lengthened for B and t.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import stats

__all__ = [
    "Estimate",
    "Z",
    "combine_seeds",
    "combine_trainings",
    "difference_of",
    "t_quantile",
    "two_sided_p",
    "upper_tail",
    "welch",
]

Z = 1.96
"""Half-width of a normal 95% interval in standard errors, as every score states it."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, 95% interval and the degrees of freedom of the error.

    Args:
        degrees: Infinite where the error is that of one measurement.
        repeats: Measurements that were combined.
    """

    value: float
    error: float | None
    interval: Interval | None
    degrees: float = math.inf
    repeats: int = 1


def t_quantile(degrees: float, tail: float = 0.025) -> float:
    """Student's t that is exceeded with probability `tail`; the normal's for infinite "
    "`degrees`.
    """
    if math.isinf(degrees):
        return Z if tail == 0.025 else float(stats.norm.isf(tail))
    return float(stats.t.isf(tail, degrees))


def combine_seeds(
    values: Sequence[float],
    errors: Sequence[float | None] | None = None,
    intervals: Sequence[Interval | None] | None = None,
) -> Estimate:
    """The mean over seeds of one network, never the minimum.

    Raises:
        ValueError: If there are no values.
    """
    return _combined(_given(values, errors, intervals), _of_seeds)


def combine_trainings(found: Sequence[Estimate]) -> Estimate:
    """The mean over trainings of one recipe, each with its seeds combined.

    Raises:
        ValueError: If there are no estimates.
    """
    return _combined(found, _of_trainings)


def difference_of(one: Estimate, other: Estimate) -> Estimate:
    """The first less the second, taken as independent; without an error if one has none."""
    value = one.value - other.value
    if one.error is None or other.error is None:
        return Estimate(value, None, None)
    error = math.hypot(one.error, other.error)
    degrees = welch([one.error, other.error], [one.degrees, other.degrees])
    reach = t_quantile(degrees) * error
    return Estimate(value, error, (value - reach, value + reach), degrees)


def upper_tail(value: float, error: float, degrees: float) -> float:
    """Probability that Student's t exceeds value / error; a half where the error is infinite."""
    if error == 0:
        return 0.5 if value == 0 else float(value < 0)
    if math.isinf(error):
        return 0.5
    if math.isinf(degrees):
        return float(stats.norm.sf(value / error))
    return float(stats.t.sf(value / error, degrees))


def two_sided_p(value: float, error: float, degrees: float) -> float:
    """Two-sided p-value of no difference; 1 where value and error are both 0."""
    return 2 * upper_tail(abs(value), error, degrees)


def welch(errors: Sequence[float], degrees: Sequence[float]) -> float:
    """Degrees of freedom of a difference or sum with these errors (Welch 1947, Satterthwaite)."""
    whole = math.fsum(e**2 for e in errors) ** 2
    parts = math.fsum(e**4 / d for e, d in zip(errors, degrees, strict=True) if math.isfinite(d))
    return whole / parts if parts > 0 else math.inf


def _given(
    values: Sequence[float],
    errors: Sequence[float | None] | None,
    intervals: Sequence[Interval | None] | None,
) -> list[Estimate]:
    known = list(errors or [None] * len(values))
    spans = list(intervals or [None] * len(values))
    return [
        Estimate(v, e, i if i or e is None else (v - Z * e, v + Z * e))
        for v, e, i in zip(values, known, spans, strict=True)
    ]


def _combined(
    found: Sequence[Estimate], rule: Callable[[float, float, int], tuple[float, float]]
) -> Estimate:
    if not found:
        raise ValueError("no values to combine")
    if len(found) == 1:
        return found[0]
    n = len(found)
    mean = math.fsum(one.value for one in found) / n
    between = math.fsum((one.value - mean) ** 2 for one in found) / (n - 1) / n
    errors = [one.error for one in found]
    within = math.fsum(e**2 for e in errors if e is not None) / n**2 if None not in errors else 0.0
    variance, degrees = rule(within, between, n)
    error = math.sqrt(variance)
    reach = t_quantile(degrees) * error
    low, high = _sides(found, reach, Z * math.sqrt(within))
    return Estimate(mean, error, (mean - low, mean + high), degrees, sum(e.repeats for e in found))


def _of_seeds(within: float, between: float, n: int) -> tuple[float, float]:
    """Variance of the mean over n seeds, and its degrees of freedom."""
    excess = max(0.0, between - within)
    if within > 0 and excess == 0:
        return within, math.inf
    total = within + excess
    return total, (n - 1) * ((total / excess) ** 2 if excess else 1.0)


def _of_trainings(within: float, between: float, n: int) -> tuple[float, float]:
    """Variance of the mean over n trainings, and its degrees of freedom."""
    return max(within, between), n - 1.0


def _sides(found: Sequence[Estimate], reach: float, plain: float) -> Interval:
    """Reach of the interval down and up, where `plain` is the reach of the errors alone."""
    spans = [one.interval for one in found]
    if plain == 0 or None in spans:
        return reach, reach
    down = math.hypot(*(e.value - i[0] for e, i in zip(found, spans, strict=True) if i))
    up = math.hypot(*(i[1] - e.value for e, i in zip(found, spans, strict=True) if i))
    longer = reach / plain / len(found)
    return down * longer, up * longer
