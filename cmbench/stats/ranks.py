"""Ranks as ranges: entries that can't be told apart share their ranks."""

from collections.abc import Callable, Sequence

__all__ = ["rank_ranges", "separate"]


def rank_ranges(count: int, better: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """First and last possible rank (from 1) of each entry.

    Args:
        count: Number of entries.
        better: Whether entry i is significantly better than entry j.
    """
    pairs = [[better(i, j) for j in range(count)] for i in range(count)]
    return [
        (1 + sum(pairs[j][i] for j in range(count)), count - sum(pairs[i])) for i in range(count)
    ]


def separate(
    intervals: Sequence[tuple[float, float]], *, higher_is_better: bool
) -> list[tuple[int, int]]:
    """Rank ranges from intervals alone: better means that the intervals don't meet.

    Stricter than a test of the difference; for entries without paired terms.
    """

    def better(i: int, j: int) -> bool:
        if higher_is_better:
            return intervals[i][0] > intervals[j][1]
        return intervals[i][1] < intervals[j][0]

    return rank_ranges(len(intervals), better)
