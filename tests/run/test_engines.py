"""Engines by name: each is one file, and takes its own options alone."""

import pytest
import torch
from rich.console import Console

from cmbench.core.errors import UserError
from cmbench.engine import names
from cmbench.engine.base import Engine
from cmbench.engine.context import JobContext
from cmbench.engine.open import open_engine
from cmbench.engine.progress import PlainProgress
from cmbench.engine.supervised import SupervisedEngine
from cmbench.store.store import Store


@pytest.fixture
def opened(tmp_path):
    context = JobContext(Store(tmp_path), torch.device("cpu"))
    return lambda name, **given: open_engine(
        name, context, PlainProgress(Console(quiet=True), 0), given
    )


def test_the_engines_are_the_files(opened):
    assert names.engine_names() == ["local", "ray", "slurm"]
    with opened("local") as engine:
        assert isinstance(engine, Engine)


def test_a_time_limit_puts_jobs_into_a_child(opened):
    with opened("local", timeout=5) as engine:
        assert isinstance(engine, SupervisedEngine)
        assert engine.limit == 5


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("local", {"cpus": 2}, "options of local: timeout"),
        ("ray", {"workers": 2}, "options of ray: address, cpus, gpus, timeout"),
        ("slurm", {"address": "auto"}, "options of slurm: workers, cpus"),
        ("local", {"timeout": float("inf")}, "--engine local: timeout"),
        ("slrum", {}, "did you mean 'slurm'"),
    ],
)
def test_what_an_engine_does_not_take_is_refused(opened, name, given, told):
    with pytest.raises(UserError) as error:
        opened(name, **given)
    assert told.lower() in str(error.value).lower()
