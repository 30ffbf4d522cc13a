"""Counts, from `cmbench disclose`, of the configurations out of which a cell was chosen."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from cmbench.core.errors import UserError
from cmbench.report.escape import plain
from cmbench.report.output import is_own

__all__ = ["DISCLOSED_NOTE", "Disclosed", "disclosed_markdown", "read_disclosed"]

DISCLOSED_NOTE = (
    "Configurations of the same model (weights, samplers, time points) whose score at the same "
    "NFE the store of the run held. A cell chosen on its own seed looks better than it is by "
    "about the gain told; one on a held-out seed does not."
)


class Disclosed(BaseModel):
    """One cell's row of `selection.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cell: str
    label: str
    nfe: float
    score: str
    tried: int
    searched: int
    held_out: bool
    gain: float

    @property
    def choice(self) -> str:
        """`best of 3`, with the time points that a search tried."""
        points = f", {self.searched} time points searched" if self.searched else ""
        return f"best of {self.tried}{points}"

    @property
    def beside(self) -> str:
        """Text beside the number itself: `best of 3, held-out seed`."""
        told = f"best of {self.tried}" if self.tried > 1 else f"best of {self.searched} searched"
        return f"{told}, held-out seed" if self.held_out else told

    @property
    def seed(self) -> str:
        """Text on the seed of the number: held out, or its own with the gain of the choice."""
        own = f"its own: {self.gain:.2g} standard errors too good, if all were equal"
        return "held out" if self.held_out else own


def read_disclosed(folder: Path) -> tuple[Disclosed, ...]:
    """The cells that were chosen among several; none where nothing was counted.

    Raises:
        UserError: If `selection.json` is not what `cmbench disclose` writes.
    """
    path = folder / "selection.json"
    if not is_own(path):
        return ()
    try:
        rows = TypeAdapter(list[Disclosed]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} can't be read: {error.errors()[0]['msg']}", fix=f"cmbench disclose {folder}"
        ) from error
    return tuple(row for row in rows if row.tried > 1 or row.searched)


def disclosed_markdown(rows: Sequence[Disclosed]) -> str:
    """A section of a table's text; empty where no cell was chosen among several."""
    if not rows:
        return ""
    head = "\n## Selection\n\n| model | NFE | score | choice | seed |\n|---|---|---|---|---|\n"
    lines = [
        f"| {plain(r.label)} | {r.nfe:g} | {plain(r.score)} | {r.choice} | {r.seed} |"
        for r in rows
    ]
    return head + "\n".join(lines) + f"\n\n{DISCLOSED_NOTE}\n"
