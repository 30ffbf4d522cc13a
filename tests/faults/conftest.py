"""One process to fork runs from, and one undisturbed run that others are compared with."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import Forks, fresh


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


@pytest.fixture(scope="session")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run, with the seconds it took in `seconds`."""
    folder = fresh(tmp_path_factory.mktemp("faults") / "whole")
    start = time.monotonic()
    run = forks.run(folder)
    assert run.code == 0, run.told
    (folder / "seconds").write_text(str(time.monotonic() - start))
    return folder
