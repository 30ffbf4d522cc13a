"""One undisturbed run of the tiny suite, that others are compared with."""

from pathlib import Path

import pytest
from tiny_suite import cmbench, fresh


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fresh(tmp_path_factory.mktemp("runs") / "a")
    done = cmbench(folder, "run", "tiny.yaml")
    assert done.returncode == 0, done.stderr
    return folder
