"""Shared by all tests: an own cache, and where the shared data lies if it is at hand."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """No test reads or writes the user's cache, and none starts a download."""
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in (
        "CMBENCH_MIRROR",
        "CMBENCH_OFFLINE",
        "CMBENCH_DATA",
        "CMBENCH_PATH",
        "CMBENCH_STORE",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def few_threads():
    """One thread: tests of a shared machine don't wait for each other's spinning threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cifar10_zip():
    """The test split as an EDM-style zip, where a copy lies beside the checkout."""
    path = Path(__file__).parents[2] / "shared" / "data" / "cifar10-32x32-test.zip"
    if not path.is_file():
        pytest.skip("no copy of CIFAR-10 beside the checkout")
    return path
