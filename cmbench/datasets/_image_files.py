"""Image files in a folder or a zip, with labels by dataset.json or by class folders."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cmbench.core.errors import UserError
from cmbench.core.text import printable
from cmbench.datasets._container_contract import Container, Image
from cmbench.datasets._decode import CORRUPT, BadImage, Fit, Shape, decode, header_shape
from cmbench.datasets._labels import Labels, labels_of_folders, labels_of_json
from cmbench.datasets._walk import Listing, Member, open_member, read_member, unreadable

__all__ = ["ImageFiles", "opened_zip"]


class ImageFiles(Container):
    """Image files in a folder or a zip."""

    def __init__(self, path: Path, listing: Listing, members: list[Member]) -> None:
        self.path, self._listing, self._members = path, listing, members
        self.ignored = listing.ignored + len(listing.images) - len(members)

    def __len__(self) -> int:
        return len(self._members)

    def images(self, *, channels: int | None = None, fit: Fit | None = None) -> Iterator[Image]:
        """Yields the images in the order of their path components."""
        with opened_zip(self.path) as archive:
            for member in self._members:
                data = read_member(member, archive)
                if isinstance(data, BadImage):
                    yield Image(member.name, data)
                    continue
                yield Image(member.name, decode(member.name, data, channels=channels, fit=fit))

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Yields the shapes of the files that have an image's header."""
        with opened_zip(self.path) as archive:
            for member in self._members:
                shape = _header_of(member, archive)
                if shape is not None:
                    yield member.name, shape

    def labels(self) -> Labels | None:
        """Returns the labels in dataset.json, or else those of class folders."""
        where = printable(str(self.path))
        if len(self._listing.labels) > 1:
            names = " and ".join(m.name for m in self._listing.labels[:2])
            raise UserError(f"{where} holds {names}", expected="one dataset.json")
        if self._listing.labels:
            return self._listed(self._listing.labels[0], where)
        intact = [i for i, member in enumerate(self._members) if not member.fault]
        labels = labels_of_folders([self._members[i].parts for i in intact], where)
        if labels is None:
            return None
        values = np.zeros(len(self), np.int64)  # A member with a fault is never read.
        values[intact] = labels.values
        return Labels(values, labels.names)

    def _listed(self, file: Member, where: str) -> Labels | None:
        root = file.parts[:-1]
        strange = next((m for m in self._listing.images if m.parts[: len(root)] != root), None)
        if strange is not None:
            raise UserError(f"{where}: {file.name} has no label for {strange.name}")
        with opened_zip(self.path) as archive:
            text = read_member(file, archive)
        if isinstance(text, BadImage):
            raise UserError(f"{where}: {file.name} can't be read: {text.detail}")
        paths = [m.parts[len(root) :] for m in self._listing.images]
        labels = labels_of_json(text, paths, f"{where}: {file.name}")
        if labels is None or len(self._members) == len(paths):
            return labels
        members = set(self._members)
        keep = [i for i, m in enumerate(self._listing.images) if m in members]
        return Labels(labels.values[keep])


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile | None]:
    """Opens a zip; a folder has no archive.

    Raises:
        UserError: If the file is truncated or not a zip.
    """
    if path.is_dir():
        yield None
        return
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise UserError(
            f"{printable(str(path))} is a damaged zip file ({error})",
            fix="download or pack it again",
        ) from None
    with archive:
        yield archive


def _header_of(member: Member, archive: zipfile.ZipFile | None) -> Shape | None:
    try:
        if member.fault or unreadable(member):
            return None
        with open_member(member, archive) as file:
            return header_shape(file)
    except (*CORRUPT, RuntimeError, NotImplementedError):
        return None
