"""How long one evaluation of a network takes here, from short batches with random weights."""

import time

import torch

from cmbench.core.loader import create
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.denoise.model import Model
from cmbench.run.work import default_batch
from cmbench.samplers._base import BoundGenerator, Sampler

__all__ = ["probe_network"]

_PROBED_PARAMETERS = 50_000_000
_HEAVY_PARAMETERS = 5_000_000
"""From here on one image, once, has to do on a CPU."""


def probe_network(model: Model, sampler: Sampler, device: torch.device) -> float | None:
    """Seconds of one evaluation of one image; None on a CPU for what is too large to try there."""
    with torch.device("meta"):
        size = sum(p.numel() for p in model.build().parameters())
    if size > _PROBED_PARAMETERS and device.type == "cpu":
        return None
    with torch.random.fork_rng(devices=[]):
        module = model.build().to(device).eval()
    module = module.to(memory_format=torch.channels_last)
    generator = BoundGenerator(module, create("sampler", sampler.spec()))  # type: ignore[arg-type]
    heavy = size > _HEAVY_PARAMETERS and device.type == "cpu"
    batch = 1 if heavy else min(64, default_batch(generator.shape, device))
    best = float("inf")
    for _ in range(1 if heavy else 3):
        with EvaluationCounter(generator.networks()) as counter:
            start = time.perf_counter()
            noise = Noise(0, range(batch), generator.shape, device)
            generator.generate(
                noise, noise.labels(generator.classes) if generator.classes else None
            )
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, (time.perf_counter() - start) / max(counter.rows, 1))
    return best
