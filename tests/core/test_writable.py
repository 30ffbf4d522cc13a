"""Temporary files of dead writers, and paths that can't be written, told before the work."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cmbench.core.errors import UserError, disk_error
from cmbench.core.files import atomic_file, refuse_unwritable, sweep, temporary_folder
from cmbench.store.store import Address, Store

KILLED = """
import os, sys
from pathlib import Path
from cmbench.core.files import atomic_file
from cmbench.store.store import Address, Store
folder = Path(sys.argv[1])
with atomic_file(folder / "s.npz") as file, atomic_file(folder / ("x" * 250)) as other:
    with Store(folder / "cache").writing(Address("score", "0" * 64), {}) as place:
        (place / "deep").mkdir()
        (place / "deep" / "half").write_text("half")
        os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_swept_and_a_living_ones_stays(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    (left,) = (tmp_path / "cache" / "tmp").iterdir()
    mine = temporary_folder(tmp_path / "cache" / "tmp", "mine")
    Store(tmp_path / "cache")
    assert list((tmp_path / "cache" / "tmp").iterdir()) == [mine]
    assert left != mine
    with atomic_file(tmp_path / "t") as file:
        file.write(b"whole")
        sweep(tmp_path)
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
    assert (tmp_path / "t").read_bytes() == b"whole"


def test_a_link_to_a_folder_of_a_dead_name_is_removed_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("")
    made = temporary_folder(tmp_path, "x")
    dead = made.name.replace(f".{os.getpid()}@", ".999999999@")
    (tmp_path / dead).symlink_to("kept")
    sweep(tmp_path)
    assert not (tmp_path / dead).is_symlink()
    assert (tmp_path / "kept" / "file").exists()


def test_the_store_discards_through_its_own_folder(tmp_path: Path) -> None:
    store, address = Store(tmp_path), Address("score", "1" * 64)
    with store.writing(address, {}) as place:
        (place / "x").write_text("1")
    assert store.has(address)
    store.discard(address)
    assert not store.present(address)
    assert list((tmp_path / "tmp").iterdir()) == []


def _loop(place: Path) -> Path:
    (place / "loop").symlink_to("loop")
    return place / "loop" / "x"


BAD: dict[str, tuple[Callable[[Path], Path], bool, str]] = {
    "a folder for a file": (lambda p: p, False, "a file is needed"),
    "a file for a folder": (lambda p: p / "file", True, "a folder is needed"),
    "a file in a file": (lambda p: p / "file" / "x", False, "folder"),
    "a folder in a file": (lambda p: p / "file" / "x", True, "folder"),
    "too long": (lambda p: p / ("x" * 300), False, "too long"),
    "a loop": (_loop, False, "circle|folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_impossible_path_is_refused_with_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made, folder, said = BAD[name]
    path = made(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        refuse_unwritable(path, folder=folder)
    assert str(tmp_path) in str(caught.value)


def test_a_path_that_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new" / "file.png")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("number", [5, 20, 21, 28, 30, 36, 40])
def test_faults_of_the_file_system_are_told_with_the_path(number: int) -> None:
    told = disk_error(OSError(number, os.strerror(number)), place="/some/where")
    assert told is not None
    assert "/some/where" in str(told)
    assert told.fix
