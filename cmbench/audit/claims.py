"""Checks of `cmbench verify`: claims against each other, and numbers against recomputed ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cmbench.core.digests import digest
from cmbench.record.schema import Record, ScoreRecord

__all__ = [
    "Check",
    "Options",
    "close",
    "compared",
    "contradictions",
    "differences",
    "field_checks",
]


@dataclass(frozen=True)
class Options:
    """Options of `cmbench verify`: what is checked, and how strictly.

    Args:
        fraction: Share of the claimed shards that is sampled again, at least one shard.
        seed: Seed of the random choice of shards.
        levels: Grey levels by which pixels may differ on another device; 0: bit-identical.
        relative: Allowed relative difference of scores, for rounding on another machine.
        of_error: Also allowed difference, as a share of the score's standard error.
        retrain: Whether to retrain models that are not in the cache.
    """

    fraction: float = 0.1
    seed: int = 0
    levels: int = 0
    relative: float = 1e-5
    of_error: float = 0.01
    retrain: bool = False


@dataclass(frozen=True)
class Check:
    """The result of checking one claim.

    Args:
        verdict: The claim holds; it does not; it can't be checked here, though it could be
            elsewhere; or nobody could check it afterwards (a time, a machine's name).
        cell: The cell's id; empty for a claim about no cell.
        what: What was checked.
        detail: The outcome in words.
    """

    verdict: Literal["confirmed", "differs", "unchecked", "on trust"]
    cell: str
    what: str
    detail: str = ""


def differences(one: Any, two: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the dotted paths at which two JSON values differ, with both values.

    True differs from 1, and NaN differs from everything.
    """
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted({*one, *two}):
            inner = f"{place}.{key}" if place else str(key)
            yield from differences(one.get(key, _ABSENT), two.get(key, _ABSENT), inner)
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            yield from differences(a, b, f"{place}.{index}" if place else str(index))
    elif isinstance(one, bool) is not isinstance(two, bool) or one != two:
        yield place, one, two


_ABSENT = "(absent)"


def field_checks(
    cell: str, what: str, claimed: dict[str, Any], expected: dict[str, Any]
) -> Iterator[Check]:
    """Yields a check for each field that is not as expected."""
    for place, one, two in differences(claimed, expected):
        name = f"{what}: {place}" if what else place
        yield Check("differs", cell, name, f"{_brief(one)} claimed, {_brief(two)} expected")


def contradictions(record: Record) -> Iterator[Check]:
    """Yields the claims of a record that contradict each other."""

    def differs(what: str, detail: str) -> Check:
        return Check("differs", record.cell, what, detail)

    if digest(record.identity)[:16] != record.cell:
        yield differs("identity", "the cell's id is not the hash of its identity")
    for name in ("seed", "images"):
        if record.identity.get(name) != getattr(record, name):
            yield differs(name, f"{getattr(record, name)}, its identity says "
                          f"{record.identity.get(name)}")  # fmt: skip
    for score in record.scores:
        if digest(score.protocol) != score.fingerprint:
            yield differs(score.title, "its fingerprint is not the hash of its protocol")
        if score.count != record.images or score.protocol.get("images") != record.images:
            yield differs(
                score.title, f"scored on {score.count} images, the cell has {record.images}"
            )


def compared(record: Record, claimed: ScoreRecord, ours: ScoreRecord, options: Options) -> Check:
    """Compares a claimed score with the recomputed one, number by number.

    Args:
        record: The cell's record.
        claimed: The score that it claims.
        ours: The recomputed score. If its key differs for the same samples, the claimed one comes
            from another version of the metric's code, and interval and details are not compared.
        options: How strictly to compare.
    """
    room = options.of_error * (ours.error or 0.0)
    same_code = claimed.key == ours.key
    for name, one, two in _numbers(claimed, ours):
        if one is not None and two is not None and close(one, two, options.relative, room):
            continue
        if one is None and two is None:
            continue
        if name not in ("value", "error") and not same_code:
            continue
        shown = [f"{x:.8g}" if isinstance(x, float) else "nothing" for x in (one, two)]
        return Check("differs", record.cell, claimed.title,
                       f"{name}: {shown[0]} claimed, {shown[1]} recomputed")  # fmt: skip
    if claimed.count != ours.count:
        return Check("differs", record.cell, claimed.title,
                       f"{claimed.count} images claimed, {ours.count} recomputed")  # fmt: skip
    gap = abs(claimed.value - ours.value)
    detail = "to the last digit" if gap == 0 else f"within {gap:.1g}"
    detail += "" if same_code else "; interval and details not compared"
    return Check("confirmed", record.cell, claimed.title, f"{claimed.value:.6g} {detail}")


def close(one: float, two: float, relative: float, room: float = 0.0) -> bool:
    """Tests whether two numbers agree within a relative or absolute tolerance; NaN never does."""
    return abs(one - two) <= max(relative * abs(two), room)


def _numbers(
    claimed: ScoreRecord, ours: ScoreRecord
) -> Iterator[tuple[str, float | None, float | None]]:
    yield "value", claimed.value, ours.value
    yield "error", claimed.error, ours.error
    for index, name in enumerate(("low", "high")):
        yield name, _end(claimed.interval, index), _end(ours.interval, index)
    for name in sorted({*claimed.details, *ours.details}):
        yield f"details.{name}", claimed.details.get(name), ours.details.get(name)


def _end(interval: Sequence[float] | None, index: int) -> float | None:
    return None if interval is None else interval[index]


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 90 else text[:89] + "…"
