"""The optimisers of recipes, and the learning rate at each step."""

from collections.abc import Callable

import torch
from torch import nn

from cmbench.train.muon import Muon
from cmbench.train.recipe import Optimiser, Recipe

__all__ = ["build_optimiser", "learning_rate"]


def build_optimiser(spec: Optimiser, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Returns a new optimiser of `parameters`, whose learning rate is set before every step."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "radam": torch.optim.RAdam,
        "muon": Muon,
    }
    return kinds[spec.name](
        parameters,
        lr=spec.lr,
        betas=spec.betas,
        eps=spec.eps,
        weight_decay=spec.weight_decay,
        foreach=True,
    )


def learning_rate(recipe: Recipe, step: int, share: float) -> float:
    """Returns the rate at `step` (from 0): warm-up, decay, and the objective's `share` (0 to 1).

    Warm-up is linear in the images seen after the step, up to `warmup_images`; decay is linear in
    the images that remain before it, over the last `decay_images`.
    """
    spec, seen = recipe.optimiser, step * recipe.batch
    factor = min(1.0, (seen + recipe.batch) / spec.warmup_images) if spec.warmup_images else 1.0
    if spec.decay_images:
        factor *= min(1.0, max(0.0, (recipe.images - seen) / spec.decay_images))
    return spec.lr * (factor * share)
