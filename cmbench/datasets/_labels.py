"""Class labels by one rule for all containers.

Class folders: the last folder above an image names its class (`train/cat` and `test/cat` are one
class). Folders that are all numbers (`7`, `07`, `class 7`) are labels by their value; other names
are numbered in sorted order and keep their names, by which two sets are matched. A `dataset.json`
takes precedence over folders. Arrays and columns hold integers, or one-hot rows.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmbench.core.errors import UserError, nearest
from cmbench.core.text import printable
from cmbench.datasets._splits import is_split

__all__ = ["Labels", "label_array", "labels_of_folders", "labels_of_json", "renumbered"]

_NUMBER = re.compile(r"(?:class|label)?[ _-]?([0-9]{1,6})", re.IGNORECASE | re.ASCII)
_CHUNK = re.compile(r"img([0-9]{8})\.\w+", re.ASCII)


class Labels(NamedTuple):
    """Label of each image, int64 (N,), and the names of the classes, if they have names."""

    values: NDArray[np.int64]
    names: tuple[str, ...] | None = None


def labels_of_folders(paths: Sequence[tuple[str, ...]], where: str) -> Labels | None:
    """Returns the labels by class folders; None if some image is not in one.

    Args:
        paths: Parts of each image's path.
        where: The container, for messages.

    Raises:
        UserError: If two folders have one number, such as `1` and `01`.
    """
    if not paths or any(len(parts) < 2 for parts in paths) or _in_chunks(paths):
        return None
    folders = [parts[:-1] for parts in paths]
    while all(is_split(f[-1]) and len(f) > 1 for f in folders):
        folders = [f[:-1] for f in folders]
    named = [f[-1] for f in folders]
    known = sorted(set(named))
    numbers = {name: _number(name) for name in known}
    if None not in numbers.values():
        _require_distinct(numbers, where)
        return Labels(np.array([numbers[name] for name in named], np.int64))
    place = {name: i for i, name in enumerate(known)}
    return Labels(np.array([place[name] for name in named], np.int64), tuple(known))


def _in_chunks(paths: Sequence[tuple[str, ...]]) -> bool:
    """Detects EDM's folders of a thousand images each (`00007/img00007123.png`)."""
    for parts in paths:
        match = _CHUNK.fullmatch(parts[-1])
        if match is None or parts[-2] != f"{int(match[1]) // 1000:05d}":
            return False
    return True


def _number(name: str) -> int | None:
    match = _NUMBER.fullmatch(name)
    return int(match[1]) if match else None


def _require_distinct(numbers: dict[str, int | None], where: str) -> None:
    by_value: dict[int | None, str] = {}
    for name, value in numbers.items():
        if value in by_value:
            raise UserError(
                f"{where}: class folders {printable(by_value[value])} and {printable(name)} "
                f"are both class {value}",
                fix="rename one of them",
            )
        by_value[value] = name


def labels_of_json(text: bytes, paths: Sequence[tuple[str, ...]], where: str) -> Labels | None:
    """Returns the labels of EDM's `dataset.json`; None if it states that there are none.

    Args:
        text: The file: `{"labels": [["00000/img.png", 6], ...]}`, or `{"labels": null}`.
        paths: Parts of each image's path below the file's folder.
        where: The file, for messages.

    Raises:
        UserError: If it has another form, or its names are not those of the images.
    """
    try:
        rows = json.loads(text).get("labels")
        listed = [(str(name), label) for name, label in rows or []]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise _unread_json(where) from None
    if not listed:
        return None
    if any(isinstance(label, bool) or not isinstance(label, int) for _, label in listed):
        raise _unread_json(where)
    labels = {_parts(name): label for name, label in listed}
    if len(labels) != len(listed):
        raise UserError(f"{where} lists an image twice")
    missing = next((p for p in paths if p not in labels), None)
    if missing is not None:
        raise UserError(f"{where} has no label for {printable('/'.join(missing))}")
    extra = next(iter(labels.keys() - set(paths)), None)
    if extra is not None:
        raise UserError(
            f"{where} has {len(labels):,} labels for {len(paths):,} images: "
            f"{printable('/'.join(extra))} is not there",
            fix="download or unpack the container again, or remove the surplus labels",
        )
    return Labels(label_array(np.array([labels[p] for p in paths], object), len(paths), where))


def _parts(name: str) -> tuple[str, ...]:
    return tuple(p for p in name.replace("\\", "/").split("/") if p not in ("", "."))


def _unread_json(where: str) -> UserError:
    return UserError(
        f"{where} can't be read as labels",
        expected='{"labels": [["00000/img.png", 6], ...]} with whole numbers, or {"labels": null}',
    )


def label_array(given: NDArray[Any], count: int, where: str) -> NDArray[np.int64]:
    """Returns labels (N,) of an array: whole numbers (N,) or (N, 1), or one-hot rows (N, K).

    Raises:
        UserError: For another shape, length or type, labels below 0, or labels that count from
            1 to 1000 as ImageNet's downsampled files do.
    """
    values = given.reshape(-1) if given.ndim == 2 and given.shape[1] == 1 else given
    if values.ndim == 2 and values.shape[1] > 1 and _one_hot(values):
        values = values.argmax(axis=1)
    if values.ndim != 1 or not _whole(values):
        raise UserError(
            f"{where} are {given.dtype} {given.shape}, not a class for each image",
            expected=f"whole numbers ({count},) or ({count}, 1), or one-hot rows",
        )
    if len(values) != count:
        raise UserError(f"{where}: {len(values)} labels for {count} images")
    labels = values.astype(np.int64)
    if count and labels.min() < 0:
        raise UserError(f"{where} run from {labels.min()} to {labels.max()}", expected="0 or more")
    if count and (labels.min(), labels.max()) == (1, 1000):
        raise UserError(
            f"{where} run from 1 to 1000, as in ImageNet's downsampled files",
            expected="0 to 999",
            fix="subtract 1 from the labels",
        )
    return labels


def _whole(values: NDArray[Any]) -> bool:
    """Tests whether the values are integers that int64 holds exactly."""
    if values.dtype.kind in "iu":
        return not len(values) or int(values.max()) < 2**31
    if values.dtype.kind == "O":
        return all(type(v) is int and abs(v) < 2**31 for v in values)
    if values.dtype.kind != "f":
        return False
    finite = np.isfinite(values).all() and np.abs(values).max(initial=0) < 2**31
    return bool(finite and (values == np.rint(values)).all())


def _one_hot(rows: NDArray[Any]) -> bool:
    if rows.dtype.kind not in "iufb":
        return False
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all())


def renumbered(labels: Labels, known: Sequence[str] | None, where: str) -> NDArray[np.int64]:
    """Returns labels in the numbering of another set, whose class i is called `known[i]`.

    Numbers stay as they are; names are matched by name.

    Raises:
        UserError: For a name that the other set does not have, or if its classes have no names.
    """
    if labels.names is None:
        return labels.values
    if known is None:
        raise UserError(
            f"{where}: classes are named ({printable(labels.names[0])}, ...), those of the "
            "other set are numbers",
            fix="name the class folders by the other set's numbers",
        )
    place = {name: i for i, name in enumerate(known)}
    strange = next((name for name in labels.names if name not in place), None)
    if strange is not None:
        near = nearest(strange, known)
        raise UserError(
            f"{where}: no class is named '{printable(strange)}' in the other set"
            + (f". Did you mean '{printable(near)}'?" if near else ""),
            expected=", ".join(printable(name) for name in list(known)[:20]),
        )
    return np.array([place[name] for name in labels.names], np.int64)[labels.values]
