"""A training that was stopped and resumed ends with the weights of one that was not."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmbench.core.errors import Interrupted
from cmbench.core.loader import create
from cmbench.train.loop import TrainState, train
from cmbench.train.recipe import Recipe

RECIPE = Recipe(
    recipe="edm/tiny",
    model={
        "name": "edm",
        "shape": (1, 8, 8),
        "network": {"name": "compact_unet", "channels": (16,), "dropout": 0.1, "embedding": 16},
    },
    dataset="digits",
    objective="edm",
    batch=8,
    images=80,
    flip=True,
)


def _run(
    folder: Path, stop: int | None = None, how: signal.Signals | None = signal.SIGINT
) -> dict[str, torch.Tensor]:
    def progress(state: TrainState) -> None:
        if state.step == stop and how is None:
            raise OSError(5, "Input/output error")
        if state.step == stop:
            signal.raise_signal(how)

    images = create("dataset", "digits").open()
    result = train(
        RECIPE,
        dataset_images=images,
        folder=folder,
        device=torch.device("cpu"),
        progress=progress,
    )
    return load_file(result.weights)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGINT, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGHUP, id="closed terminal"),
        pytest.param(None, id="progress can't be written"),
    ],
)
def test_resumed_training_equals_an_undisturbed_one_to_the_bit(
    tmp_path: Path, how: signal.Signals | None
) -> None:
    straight = _run(tmp_path / "straight")
    with pytest.raises(Interrupted if how else OSError):
        _run(tmp_path / "cut", stop=5, how=how)
    assert list((tmp_path / "cut").glob("checkpoint-000000005.pt"))
    resumed = _run(tmp_path / "cut")
    assert straight.keys() == resumed.keys()
    for name, expected in straight.items():
        assert torch.equal(resumed[name], expected), name


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    straight = _run(tmp_path / "straight")
    for stop in (3, 6):
        with pytest.raises(Interrupted):
            _run(tmp_path / "cut", stop=stop)
    newest = sorted((tmp_path / "cut").glob("checkpoint-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    resumed = _run(tmp_path / "cut")
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_what_a_killed_writer_left_beside_the_checkpoints_is_removed(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    host = socket.gethostname()
    dead = tmp_path / f".checkpoint-000000005.pt.{gone}@{host}.abcd.tmp"
    alive = tmp_path / f".checkpoint-000000005.pt.{os.getppid()}@{host}.abcd.tmp"
    for file in (dead, alive):
        file.write_bytes(b"half a checkpoint")
    _run(tmp_path)
    assert not dead.exists()
    assert alive.exists()
