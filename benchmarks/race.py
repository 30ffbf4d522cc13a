"""Races of known order: how often a settled order is wrong, and how many evaluations are saved.

    python benchmarks/race.py [--races 500] [--full 10000]

An entry's score is the mean of its samples: its true mean, noise that all entries share, and noise
of its own, skewed as distances are. Some entries lie far apart, some close, some are equal twice.
A race is wrong if one settled entry's rank contradicts the true order. Rounds double from 250.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np

from cmbench.stats.race import Race

MEANS = (10.0, 10.005, 10.1, 10.3, 10.31, 10.8, 12.0, 15.0)
FIRST = 250


@dataclass(frozen=True)
class Outcome:
    """Result of all races: the number wrong, and the shares of samples drawn and ranks settled."""

    wrong: int
    drawn: float
    settled: float


def is_wrong(rank: int, mean: float, means: np.ndarray) -> bool:
    """Returns whether the true means rule out a rank (from 1)."""
    return not 1 + int((means < mean).sum()) <= rank <= int((means <= mean).sum())


def run(races: int, full: int, means: tuple[float, ...] = MEANS, seed: int = 0) -> Outcome:
    """Runs so many races of as many entries as means; lower is better."""
    wrong, drawn, settled = 0, 0, 0
    truth = np.array(means)
    for number in range(races):
        chance = np.random.default_rng((seed, number))
        shared = chance.normal(0, 1.0, full)
        own = chance.gamma(1.0, 0.7, (len(means), full)) - 0.7
        samples = truth[:, None] + shared + own
        race = Race([str(i) for i in range(len(means))], full, higher_is_better=False)
        count = FIRST
        while count < full and race.open:
            now = {name: samples[int(name), :count] for name in race.open}
            race.judge(
                {k: float(v.mean()) for k, v in now.items()},
                {k: v - v.mean() for k, v in now.items()},
            )
            count *= 2
        wrong += any(is_wrong(s.rank, means[int(s.entry)], truth) for s in race.settled)
        drawn += sum(s.samples for s in race.settled) + len(race.open) * full
        settled += len(race.settled)
    entries = races * len(means)
    return Outcome(wrong, drawn / (entries * full), settled / entries)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--races", type=int, default=500)
    parser.add_argument("--full", type=int, default=10_000)
    given = parser.parse_args()
    for name, means in (("apart and close", MEANS), ("all equal", (10.0,) * 8)):
        found = run(given.races, given.full, means)
        sys.stdout.write(
            f"{name}: {found.wrong} of {given.races} races wrong, {found.settled:.0%} of the "
            f"ranks settled early, {1 - found.drawn:.0%} of the evaluations saved\n"
        )


if __name__ == "__main__":
    main()
