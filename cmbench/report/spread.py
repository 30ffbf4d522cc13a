"""The spread in a row's interval, in words: sampling alone, or seeds and trainings too."""

from cmbench.stats.rows import Row

__all__ = ["repeats", "spread_of"]


def repeats(row: Row) -> str:
    """`5 seeds`, `3 trainings`, `3 trainings, 2 seeds`; empty for a single record."""
    counts = ((row.trainings, "trainings"), (len(row.seeds), "seeds"))
    return ", ".join(f"{count} {what}" for count, what in counts if count > 1)


def spread_of(row: Row) -> str:
    """The spread in the interval: `sampling`, `sampling over 5 seeds`, `spread of 3 trainings`."""
    if row.trainings > 1:
        return f"spread of {row.trainings} trainings"
    return f"sampling over {len(row.seeds)} seeds" if len(row.seeds) > 1 else "sampling"
