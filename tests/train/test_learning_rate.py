"""The rate at which weights are trained: Algorithm 3 step by step, and every objective's rate."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from cmbench.core.loader import available, create
from cmbench.train.draws import Draws
from cmbench.train.loop import train
from cmbench.train.recipe import Recipe, read_recipe

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
STEPS, BATCH, RATE = 30, 8, 1e-3
NETWORK = {"name": "compact_unet", "channels": (16,), "embedding": 16}
TRAINING = Recipe(
    recipe="consistency/tiny",
    model={"name": "consistency", "shape": (1, 8, 8), "network": NETWORK},
    dataset="digits",
    objective="ct",
    distance="l2",
    optimiser={"name": "adam", "lr": RATE},
    batch=BATCH,
    images=STEPS * BATCH,
    ema={"half_life_images": 0},
    clip=None,
    seed=7,
)


def _schedule(kind: str, k: int, s0: int, s1: int, mu0: float) -> tuple[int, float]:
    """N(k) and mu(k) of the paper's appendix C, or constants."""
    if kind == "fixed":
        return s1 + 1, mu0
    steps = max(math.ceil(math.sqrt(k / STEPS * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1), 1)
    return steps + 1, mu0 ** (s0 / steps)


def _consistent(net: torch.nn.Module, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """f(x, t) of the paper's appendix C with sigma_data 0.5 and eps 0.002."""
    t = t[:, None, None, None].double()
    skip = 0.25 / ((t - 0.002) ** 2 + 0.25)
    out = 0.5 * (t - 0.002) / (t**2 + 0.25).sqrt()
    raw = net((x / (t**2 + 0.25).sqrt()).float(), (t.flatten().log() / 4).float(), None)
    return skip.float() * x + out.float() * raw


def _levels(count: int) -> torch.Tensor:
    place = torch.linspace(0, 1, count, dtype=torch.float64)
    return (80 ** (1 / 7) + place * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7


def _algorithm_3(
    student: torch.nn.Module, data: torch.Tensor, kind: str, s0: int, s1: int, mu0: float
) -> None:
    """The paper's loop, which trains `student` (a raw network) in place at the constant rate."""
    target = [p.detach().clone() for p in student.parameters()]
    names = [name for name, _ in student.named_parameters()]
    optimiser = torch.optim.Adam(student.parameters(), lr=RATE)
    for k in range(STEPS):
        count, mu = _schedule(kind, k, s0, s1, mu0)
        draws = Draws(TRAINING.seed, k, BATCH, (0, BATCH), CPU)
        images = data[draws.integers(len(data))]
        index = draws.integers(count - 1)
        noise = draws.normal(1, 8, 8)
        t, u = _levels(count)[index].float(), _levels(count)[index + 1].float()
        far, near = (images + level[:, None, None, None] * noise for level in (t, u))
        online = _consistent(student, far, t)
        with torch.no_grad():
            frozen = dict(zip(names, target, strict=True))
            aim = _consistent(
                lambda *given, w=frozen: torch.func.functional_call(student, w, given), near, u
            )
        optimiser.zero_grad()
        (online - aim).square().mean((1, 2, 3)).mean().backward()
        optimiser.step()
        target = [
            mu * old + (1 - mu) * new.detach()
            for old, new in zip(target, student.parameters(), strict=True)
        ]


@pytest.mark.parametrize("kind", ["adaptive", "fixed"])
def test_consistency_training_is_algorithm_3_to_1e_6(tmp_path: Path, kind: str) -> None:
    s0, s1, mu0 = 2, 8, 0.9
    recipe = TRAINING.with_overrides(
        {"objective": {"name": "ct", "schedule": kind, "s0": s0, "s1": s1, "mu0": mu0}}
    )
    digits = create("dataset", "digits").open()
    first = create("model", recipe.model).build()
    made = train(
        recipe.with_overrides({"start": "consistency/digits"}),
        dataset_images=digits,
        start=first,
        folder=tmp_path,
        device=CPU,
    )
    data = torch.from_numpy(digits.pixels(range(len(digits)))).float() / 127.5 - 1
    before = [p.detach().clone() for p in first.net.parameters()]
    _algorithm_3(first.net.train().requires_grad_(True), data, kind, s0, s1, mu0)
    trained = load_file(made.weights)
    moved = 0.0
    for (name, expected), old in zip(first.net.named_parameters(), before, strict=True):
        torch.testing.assert_close(trained[f"net.{name}"], expected.detach(), rtol=0, atol=1e-6)
        moved = max(moved, float((expected.detach() - old).abs().max()))
    assert moved > 0.01, "the comparison would hold of a training that learns nothing"


def _recipes() -> dict[str, Path]:
    """A recipe of each objective that cmbench ships."""
    chosen: dict[str, Path] = {}
    for path in sorted(ROOT.glob("models/*/recipes/*.yaml")):
        name = read_recipe(path).built_objective().name
        if name not in chosen or path.stem == "digits":
            chosen[name] = path
    return chosen


RECIPES = _recipes()


def test_every_objective_has_a_recipe_whose_rate_is_tested() -> None:
    assert set(RECIPES) == {item.name for item in available("objective")}


def _share_of_stage(recipe: Recipe, step: int) -> float:
    """What progressive distillation documents: linearly to zero within each stage."""
    objective = recipe.built_objective()
    if objective.name != "progressive":
        return 1.0
    count, first = objective.intervals, 0
    while True:
        length = objective.stage_steps * (objective.final_factor if count <= 2 else 1)
        if count == 1 or step < first + length:
            return max(1 - (step - first) / length, 0)
        count, first = count // 2, first + length


def _shortened(recipe: Recipe) -> Recipe:
    """Twelve steps with warm-up and decay, on a network as small as its family takes."""
    changes = {
        "batch": 2, "images": 24, "optimiser.warmup_images": 6, "optimiser.decay_images": 10,
        "optimiser.name": "adam",
        "dataset": "digits",
    }  # fmt: skip
    if "network" in recipe.model:
        network = dict(recipe.model["network"])
        if network["name"] == "compact_unet":
            network |= {"channels": (16,), "attention": (), "embedding": 16, "unshuffle": 1}
        model = recipe.model | {"shape": (1, 8, 8), "network": network}
    else:
        model = recipe.model | {"shape": (1, 8, 8), "channels": (16, 16)}
    if recipe.built_objective().name == "progressive":
        changes |= {"objective.intervals": 4, "objective.stage_steps": 3}
    return recipe.with_overrides(changes | {"model": model, "start": None})


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_learning_rate_is_the_recipes_over_a_whole_training(tmp_path: Path, name: str) -> None:
    recipe = _shortened(read_recipe(RECIPES[name]))
    rates: list[float] = []

    def note(optimiser: torch.optim.Optimizer, *given: object) -> None:
        rates.append(float(optimiser.param_groups[0]["lr"]))

    digits = create("dataset", "digits").open()
    teacher = create("model", recipe.model).build() if recipe.teacher else None
    hook = register_optimizer_step_pre_hook(note)
    try:
        train(recipe, dataset_images=digits, teacher=teacher, folder=tmp_path, device=CPU)
    finally:
        hook.remove()
    expected = [
        recipe.optimiser.lr
        * min(1, (step * 2 + 2) / 6)
        * min(1, (24 - step * 2) / 10)
        * _share_of_stage(recipe, step)
        for step in range(12)
    ]
    assert rates == pytest.approx(expected, rel=1e-12)
