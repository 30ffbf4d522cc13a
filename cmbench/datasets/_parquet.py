"""Reads the parquet files of a Hugging Face image set: a column of image files, and labels."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmbench.core.errors import Pending, UserError
from cmbench.core.text import printable
from cmbench.datasets._decode import MAX_BYTES, BadImage
from cmbench.datasets._labels import Labels, label_array

__all__ = ["ParquetFiles"]

_IMAGES = ("img", "image")
_LABELS = ("label", "fine_label", "labels")
_ROWS = 256


class ParquetFiles:
    """The rows of parquet files, in the order of the files.

    Raises:
        UserError: If a file can't be read, or has no column of images.
        Pending: If pyarrow is not installed.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise Pending(
                "reading parquet needs the package pyarrow",
                command="pip install 'cmbench[parquet]'",
            ) from None
        self.files = list(files)
        self._faults = (pyarrow.ArrowException, OSError, ValueError, MemoryError)
        self._open = pyarrow.parquet.ParquetFile
        self._counts, self._columns = [], []
        for file in self.files:
            opened = self._opened(file)
            self._counts.append(opened.metadata.num_rows)
            self._columns.append(set(opened.schema_arrow.names))
        self._image = self._column(_IMAGES, required=True)
        self._label = self._column(_LABELS, required=False)

    def __len__(self) -> int:
        return sum(self._counts)

    def members(self) -> Iterator[tuple[str, bytes | BadImage]]:
        """Yields each row's name and image file.

        Raises:
            UserError: If a file can't be read to its end.
        """
        for file in self.files:
            row = 0
            for batch in self._batches(file, self._image):
                for cell in batch:
                    name = f"{printable(file.name)}: row {row}"
                    yield name, _image_bytes(name, cell)
                    row += 1

    def labels(self) -> Labels | None:
        """Returns the labels, with the classes' names where the file states them.

        Rows that all have -1 have no label, by the hub's convention.
        """
        if self._label is None:
            return None
        values = [v for f in self.files for part in self._batches(f, self._label) for v in part]
        if values and all(v == -1 for v in values):
            return None
        array = np.array(values, object if None in values else None)
        where = f"{printable(str(self.files[0]))}: column {self._label}"
        return Labels(label_array(array, len(values), where), self._class_names())

    def _class_names(self) -> tuple[str, ...] | None:
        """Returns the names that the hub keeps in the schema's metadata."""
        held = self._opened(self.files[0]).schema_arrow.metadata or {}
        try:
            features = json.loads(held.get(b"huggingface", b"{}"))["info"]["features"]
            names = tuple(str(name) for name in features[self._label]["names"])
        except (ValueError, KeyError, TypeError):
            return None
        numbers = all(name.isdigit() for name in names)
        return names if names and not numbers and len(set(names)) == len(names) else None

    def _column(self, names: tuple[str, ...], *, required: bool) -> Any:
        held = [name for name in names if name in self._columns[0]]
        if not held and required:
            raise UserError(
                f"{printable(str(self.files[0]))} has no column img or image; it has: "
                + ", ".join(sorted(self._columns[0])),
                expected="a Hugging Face image set",
            )
        for file, columns in zip(self.files, self._columns, strict=True):
            if held and held[0] not in columns:
                raise UserError(
                    f"{printable(str(file))} has no column {held[0]}, unlike {self.files[0].name}"
                )
        return held[0] if held else None

    def _opened(self, file: Path) -> Any:
        try:
            return self._open(file)
        except self._faults as error:
            raise _broken(file, error) from None

    def _batches(self, file: Path, column: str) -> Iterator[list[Any]]:
        try:
            for batch in self._opened(file).iter_batches(_ROWS, columns=[column]):
                yield batch.column(0).to_pylist()
        except self._faults as error:
            raise _broken(file, error) from None


def _image_bytes(name: str, cell: Any) -> bytes | BadImage:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None and isinstance(cell, dict) and cell.get("path"):
        path = printable(str(cell["path"]))
        return BadImage(name, "file", f"only the path {path} of an image, not the image itself")
    if not isinstance(data, bytes):
        return BadImage(name, "file", "no image in this row")
    if len(data) > MAX_BYTES:
        return BadImage(name, "corrupt", f"{len(data):,} bytes, more than {MAX_BYTES:,}")
    return data


def _broken(file: Path, error: BaseException) -> UserError:
    detail = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
    return UserError(
        f"{printable(str(file))} is a damaged parquet file: {detail}",
        fix="download it again",
    )
