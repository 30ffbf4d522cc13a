"""Progressive distillation: stages of the paper, and one step that is two of the teacher's."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmbench.cards.cards import find_card
from cmbench.core.errors import Interrupted
from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.distances.l2 import L2
from cmbench.samplers.openai_karras import OpenAIKarras
from cmbench.testing.oracles import GaussianDenoiser
from cmbench.train.loop import train
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.progressive import ProgressiveDistillation
from cmbench.train.recipe import Recipe, read_recipe

CPU = torch.device("cpu")
SHAPE = (1, 2, 2)


def loss_of(spec, teacher):
    return spec.build(Setup(GaussianDenoiser(SHAPE), teacher, L2().build(CPU), 1, CPU))


def test_stages_of_the_authors():
    """4096 intervals, halved every 50,000 steps; the stages of 2 and of 1 last 100,000."""
    loss = loss_of(ProgressiveDistillation(), GaussianDenoiser(SHAPE))
    for step in range(0, 650_000, 12_499):
        assert loss.intervals(step) == max(4096 // 2 ** (step // 50_000), 2)
    assert [loss.intervals(s) for s in (649_999, 650_000, 749_999, 900_000)] == [2, 1, 1, 1]


def test_each_stage_starts_the_optimiser_anew_and_its_rate_falls_to_zero():
    loss = loss_of(ProgressiveDistillation(intervals=4, stage_steps=10), GaussianDenoiser(SHAPE))
    assert [s for s in range(60) if loss.restarts(s)] == [10, 30]
    assert [loss.learning_rate_share(s) for s in (0, 5, 10, 20, 30, 50)] == [1, 0.5, 1, 0.5, 1, 0]
    assert loss.learning_rate_share(9) == pytest.approx(0.1)


class Aimed(Denoiser):
    """The student that the objective asks for, at the levels that its sampler visits."""

    def __init__(self, loss, count):
        super().__init__(SHAPE)
        self.loss, self.count, self.net = loss, count, torch.nn.Identity()
        self.levels = loss.level(torch.arange(count, dtype=torch.float64) / count)

    def forward(self, x, sigma, labels=None):
        index = (self.levels - sigma[0]).abs().argmin().expand(len(x))
        return self.loss.aim(x, index.double(), self.count, labels)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_n_steps_of_the_student_are_2n_of_the_teacher(count):
    teacher = GaussianDenoiser(SHAPE, mean=0.2)
    loss = loss_of(ProgressiveDistillation(intervals=count), teacher)
    noise = Noise(0, range(3), SHAPE)
    few, many = (OpenAIKarras(method="progdist", steps=n, clip=False) for n in (count, 2 * count))
    made = few.sample(Aimed(loss, count), noise)
    assert torch.allclose(made, many.sample(teacher, noise), atol=1e-4, rtol=1e-4)


def test_one_step_of_the_whole_chain_is_every_eulers_step_of_the_first_teacher():
    """Students that learn perfectly, stage by stage: 8, 4, 2, 1 give one and the same image."""
    teacher, noise = GaussianDenoiser(SHAPE), Noise(1, range(2), SHAPE)
    student = teacher
    for count in (8, 4, 2, 1):
        student = Aimed(loss_of(ProgressiveDistillation(), student), count)
    one = OpenAIKarras(method="progdist", steps=1, clip=False).sample(student, noise)
    euler = OpenAIKarras(method="progdist", steps=16, clip=False).sample(teacher, noise)
    assert torch.allclose(one, euler, atol=1e-4, rtol=1e-4)


NETWORK = {"name": "compact_unet", "channels": (16,), "embedding": 16}
TINY = Recipe(
    recipe="progressive/tiny",
    model={"name": "progressive", "shape": (1, 8, 8), "network": NETWORK},
    dataset="digits",
    objective={"name": "progressive", "intervals": 4, "stage_steps": 3},
    distance="l2",
    optimiser={"name": "adam", "lr": 1e-3},
    ema={"half_life_images": 0},
    batch=4,
    images=40,
)


def run(folder, stop=None):
    def progress(state):
        if state.step == stop:
            signal.raise_signal(signal.SIGINT)

    torch.manual_seed(3)
    spec = {"name": "edm", "shape": (1, 8, 8), "network": NETWORK}
    train(
        TINY,
        dataset_images=create("dataset", "digits").open(),
        teacher=create("model", spec).build(),
        folder=folder,
        device=CPU,
        progress=progress,
    )
    return load_file(folder / "weights.safetensors")


@pytest.mark.parametrize("stop", [3, 5])
def test_a_stop_between_or_within_stages_changes_no_bit(tmp_path, stop):
    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", stop)
    parts = run(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)


def test_cards_are_a_chain_from_the_teacher_down_to_one_step():
    card, counts = "progressive/digits", []
    while card.startswith("progressive/"):
        placed = find_card(card)
        recipe = read_recipe(Path(placed.recipe_file))
        objective = recipe.built_objective()
        loss = loss_of(objective, GaussianDenoiser(SHAPE))
        last = loss.intervals(recipe.steps - 1)
        assert loss.learning_rate_share(recipe.steps) in (0, 1), "a stage was cut short"
        assert (placed.card.sampler or {"steps": 1})["steps"] == last
        counts.append(last)
        card = recipe.teacher
    assert card == "edm/digits"
    assert counts == [1, 2, 4, 8]
