"""Determines the split of a member by the name of its folder or parquet file."""

import re
from collections.abc import Sequence
from pathlib import Path

from cmbench.core.errors import UserError
from cmbench.core.text import printable
from cmbench.datasets._walk import Member

__all__ = ["is_split", "of_split", "split_of_name"]

_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip
_WORD = re.compile(rf"(?:^|[-_. ])({'|'.join(_SPLITS)})(?:[-_. ]|$)", re.IGNORECASE)


def is_split(folder: str) -> bool:
    """Tests whether a folder has the name of a split."""
    return folder.lower() in _SPLITS


def split_of_name(name: str) -> str | None:
    """Returns the split that a file's name states (`train-00000-of-00001.parquet`), or None."""
    word = _WORD.search(name)
    return _SPLITS[word[1].lower()] if word else None


def of_split(
    members: Sequence[Member], split: str | None, path: Path, *, by_file: bool = False
) -> list[Member]:
    """Returns the members of one split if names state splits, else all members.

    Args:
        members: Members of a folder or zip.
        split: The requested split; None: the container is one set.
        path: The container, for messages.
        by_file: Whether the file's own name counts too, as for a hub's parquet files.

    Raises:
        UserError: If the members belong to several splits and none was requested, or if none
            belongs to the requested one.
    """
    splits = [_split(member, by_file) for member in members]
    stated = sorted({s for s in splits if s})
    if not stated or (split is None and (None in splits or len(stated) == 1)):
        return list(members)
    where = printable(str(path))
    if split is None:
        raise UserError(
            f"{where} holds the splits {' and '.join(stated)}, which are not one set of images",
            expected="one split",
            fix=f"give one of them: {where}/{_place(members[splits.index(stated[0])])}",
        )
    if split not in stated:
        raise UserError(f"{where} holds the split {' and '.join(stated)}, not {split}")
    return [m for m, s in zip(members, splits, strict=True) if s == split]


def _place(member: Member) -> str:
    """Returns the path of the folder that is named after a split, or of the file."""
    depth = next((i for i, part in enumerate(member.parts[:-1]) if is_split(part)), None)
    return printable("/".join(member.parts if depth is None else member.parts[: depth + 1]))


def _split(member: Member, by_file: bool) -> str | None:
    folders = [_SPLITS[p.lower()] for p in member.parts[:-1] if is_split(p)]
    if folders:
        return folders[0]
    return split_of_name(member.parts[-1]) if by_file else None
