"""Comparison of small networks and optimisers on CIFAR-10 in equal seconds of CPU.

    python benchmarks/networks.py --data PATH_OF_CIFAR10 [--seconds 60] [--only NAME ...]

Each variant is an EDM trained from scratch by the project's own trainer, for as many images as it
processes in so many seconds of this process's CPU (its speed is measured first), the rate falling
to zero over the second half. The table shows EDM's loss of the averaged weights on 2,000 test
images, at the same levels and noise for all: the lower, the better the teacher for the budget.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from cmbench.core.loader import create
from cmbench.train.loop import train
from cmbench.train.recipe import Recipe

MUON = {"name": "muon", "lr": 3.0e-3}
ADAM = {"name": "adam", "lr": 1.0e-3}
SMALL = {"channels": [48, 64, 80], "unshuffle": 2, "attention": [1, 2]}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "shipped": (SMALL, MUON, 32),
    "adam": (SMALL, ADAM, 32),
    "batch 128": (SMALL, MUON, 128),
    "no unshuffle": (SMALL | {"unshuffle": 1, "channels": [24, 48, 80]}, MUON, 32),
    "unshuffle 4": (
        SMALL | {"unshuffle": 4, "channels": [96, 128], "attention": [0, 1]},
        MUON,
        32,
    ),
    "no attention": (SMALL | {"attention": []}, MUON, 32),
    "attention on every level": (SMALL | {"attention": [0, 1, 2]}, MUON, 32),
    "twice as wide": (SMALL | {"channels": [96, 128, 160]}, MUON, 32),
    "half as wide": (SMALL | {"channels": [24, 32, 40]}, MUON, 32),
}
HELD_OUT, PROBED_STEPS = 2000, 12


def recipe(network: dict[str, Any], optimiser: dict[str, Any], batch: int, steps: int) -> Recipe:
    """An EDM of so many steps."""
    images = steps * batch
    rates = {"warmup_images": min(4000, images // 10), "decay_images": images // 2}
    return Recipe.model_validate({
        "recipe": "edm/variant",
        "model": {
            "name": "edm", "shape": [3, 32, 32],
            "network": {"name": "compact_unet", "embedding": 128, **network},
        },
        "dataset": {"name": "cifar10", "split": "train"},
        "objective": {"name": "edm", "p_mean": -1.0, "p_std": 1.4},
        "optimiser": optimiser | rates,
        "batch": batch, "images": images, "ema": {"half_life_images": images / 40},
        "flip": True, "seed": 0, "log_every": 1000,
        "save_every_images": 10**9,
    })  # fmt: skip


def trained(made: Recipe, images: Any) -> tuple[nn.Module, float]:
    """The averaged network, and the seconds of CPU of one of its steps (the median)."""
    clock: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            made, dataset_images=images, folder=Path(folder), device=torch.device("cpu"),
            progress=lambda _: clock.append(time.process_time()),
        )  # fmt: skip
        module = create("model", made.model).build()
        module.load_state_dict(load_file(result.weights))
    return module.eval(), float(np.median(np.diff(clock)))


@torch.inference_mode()
def held_out(module: nn.Module, images: Any) -> float:
    """EDM's loss at equally likely levels and the same noise for every variant."""
    drawn = torch.Generator().manual_seed(0)
    total = 0.0
    for first in range(0, HELD_OUT, 100):
        pixels = torch.from_numpy(images.pixels(np.arange(first, first + 100)))
        x = pixels.float() / 127.5 - 1
        sigma = (-1.0 + 1.4 * torch.randn(100, generator=drawn)).exp()
        level = sigma[:, None, None, None]
        made = module(x + level * torch.randn(x.shape, generator=drawn), sigma)
        error = (made - x).square().flatten(1).mean(1)
        total += float(((sigma**2 + 0.25) / (sigma * 0.5) ** 2 * error).sum())
    return total / HELD_OUT


def main() -> None:
    """Trains every variant and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=list(VARIANTS))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    images = create("dataset", {"name": "cifar10", "split": "train"}).open(asked.data)
    unseen = create("dataset", {"name": "cifar10", "split": "test"}).open(asked.data)
    print("| variant | parameters | images | CPU s | held-out loss |\n|---|---:|---:|---:|---:|")
    for name in asked.only:
        network, optimiser, batch = VARIANTS[name]
        _, probed = trained(recipe(network, optimiser, batch, PROBED_STEPS), images)
        steps = max(PROBED_STEPS, int(asked.seconds / probed))
        module, each = trained(recipe(network, optimiser, batch, steps), images)
        size = sum(p.numel() for p in module.parameters()) / 1e6
        loss = held_out(module, unseen)
        print(
            f"| {name} | {size:.1f} M | {steps * batch:,} | {each * steps:.0f} | {loss:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
