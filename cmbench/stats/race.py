"""A race: entries stop as soon as their rank is settled, by intervals that hold at all times.

After n samples the difference of two entries has the half width

    s sqrt(2 (n r^2 + 1) / (n^2 r^2) log(sqrt(n r^2 + 1) / a)),

s the standard deviation of the paired terms: the asymptotic confidence sequence of Waudby-Smith,
Arbour, Sinha, Kennedy and Ramdas (2021, https://arxiv.org/abs/2103.06476). Looking after every
round costs nothing: with probability 1 - a no interval of a pair ever misses. a is the level over
the number of pairs (Bonferroni), r makes the interval narrowest at a quarter of the full count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Race", "Settled", "half_width"]


@dataclass(frozen=True)
class Settled:
    """An entry that needs no more samples.

    Args:
        entry: Its name.
        rank: From 1, among all entries of the race.
        samples: After how many it was settled.
        value: Its score at that count.
    """

    entry: str
    rank: int
    samples: int
    value: float


def half_width(spread: float, samples: int, best_at: float, level: float) -> float:
    """Half width of a mean's interval that holds for every number of samples at once.

    Args:
        spread: Standard deviation of a sample.
        samples: How many there are.
        best_at: The number at which the interval is to be narrowest.
        level: Probability that it ever misses.
    """
    log = -2 * math.log(level)
    scaled = samples * (log + math.log(log + 1)) / best_at
    return spread * math.sqrt(
        2 * (scaled + 1) / (samples * scaled) * math.log(math.sqrt(scaled + 1) / level)
    )


class Race:
    """Entries whose ranks are still open, and how those stand that are settled.

    Args:
        entries: Their names.
        full: Samples of an entry that is never settled.
        higher_is_better: Direction of the scores.
        level: Probability that any order that the race settles is wrong.
    """

    def __init__(
        self, entries: Sequence[str], full: int, *, higher_is_better: bool, level: float = 0.05
    ) -> None:
        self.open = list(entries)
        self.settled: list[Settled] = []
        self._full, self._sign = full, 1 if higher_is_better else -1
        self._level = level / max(1, len(entries) * (len(entries) - 1) // 2)
        self._above = dict.fromkeys(entries, 0)

    def judge(
        self, values: Mapping[str, float], terms: Mapping[str, NDArray[np.float64]]
    ) -> list[Settled]:
        """Takes in a round; returns the entries that it settles, which leave the race.

        Args:
            values: Scores of all open entries over the samples so far.
            terms: Their influence terms, (N,) each: row i of all from the same noise.
        """
        ahead = {one: self._ahead_of(one, values, terms) for one in self.open}
        found = [
            Settled(one, 1 + self._above[one] + worse, len(terms[one]), values[one])
            for one, (better, worse) in ahead.items()
            if better + worse == len(self.open) - 1
        ]
        gone = {settled.entry for settled in found}
        for one in (entry for entry in self.open if entry not in gone):
            self._above[one] += sum(self._gain(s.entry, one, values) > 0 for s in found)
        self.open = [one for one in self.open if one not in gone]
        self.settled += found
        return found

    def leave(self, entry: str) -> None:
        """Takes an entry out, unsettled."""
        self.open.remove(entry)

    def _ahead_of(
        self, one: str, values: Mapping[str, float], terms: Mapping[str, NDArray[np.float64]]
    ) -> tuple[int, int]:
        """Counts the open entries that are surely worse than one, and those surely better."""
        better = worse = 0
        for other in self.open:
            if other == one:
                continue
            gain = self._gain(one, other, values)
            spread = float(np.std(terms[one] - terms[other], ddof=1))
            reach = half_width(spread, len(terms[one]), self._full / 4, self._level)
            better += gain > reach
            worse += -gain > reach
        return better, worse

    def _gain(self, one: str, other: str, values: Mapping[str, float]) -> float:
        return self._sign * (values[one] - values[other])
