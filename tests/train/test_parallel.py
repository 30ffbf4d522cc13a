"""Two processes train as one: the same gradients for the same global batch."""

import os
import subprocess
import sys

import torch
from safetensors.torch import load_file

SCRIPT = """
import sys, torch
from pathlib import Path
from cmbench.core.loader import create
from cmbench.train.loop import train
from cmbench.train.recipe import Recipe
torch.set_num_threads(1)
recipe = Recipe(recipe="edm/tiny", dataset="digits", objective="edm", batch=8, images=24, flip=True,
    model={"name": "edm", "shape": (1, 8, 8),
           "network": {"name": "compact_unet", "channels": (16,), "embedding": 16}},
    optimiser={"name": "adam", "lr": 1e-3, "eps": 1e-3})
train(recipe, dataset_images=create("dataset", "digits").open(), folder=Path(sys.argv[1]),
      device=torch.device("cpu"))
"""


def test_two_ranks_equal_one_process(tmp_path):
    script = tmp_path / "go.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = [sys.executable, str(script)]
    subprocess.run([*run, str(tmp_path / "one")], env=env, check=True, timeout=120)
    ranks = [
        subprocess.Popen(
            [*run, str(tmp_path / "two")],
            env={**env, "RANK": str(i), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": "29655"},
        )
        for i in range(2)
    ]  # fmt: skip
    assert [r.wait(120) for r in ranks] == [0, 0]
    one = load_file(tmp_path / "one" / "weights.safetensors")
    two = load_file(tmp_path / "two" / "weights.safetensors")
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=1e-6), name
