"""Easy consistency tuning: the authors' table of r / t, its two ends, its two scalings."""

import math
from pathlib import Path

import pytest
import torch

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.denoise.precondition import ConsistencyFunction
from cmbench.run.train import run_recipes
from cmbench.testing.oracles import GaussianDenoiser
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Setup
from cmbench.train.objectives.ect import EasyConsistencyTuning
from cmbench.train.recipe import read_recipe

CPU = torch.device("cpu")
RECIPE = Path(__file__).parents[2] / "models" / "ect" / "recipes" / "digits.yaml"
NETWORK = {"name": "compact_unet", "channels": [16], "embedding": 16}


def student_of(**fields):
    torch.manual_seed(0)
    spec = {"name": "ect", "shape": [1, 8, 8], "network": NETWORK, **fields}
    module = create("model", spec).build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    return module


def loss_of(student=None, total=800, **spec):
    student = student or student_of()
    return EasyConsistencyTuning(**spec).build(Setup(student, None, None, total, CPU))


TABLE = {
    0: (0, 0, 0.4998, 0.5),
    1: (0, 0.2121, 0.7499, 0.75),
    2: (0.4, 0.6061, 0.875, 0.875),
    4: (0.85, 0.9015, 0.9687, 0.9688),
    7: (0.9812, 0.9877, 0.9961, 0.9961),
}
"""r / t at t = 0.1, 1, 10, 80, as the authors' code gives it."""


@pytest.mark.parametrize("stage", TABLE)
def test_the_lower_level_of_the_authors(stage):
    t = torch.tensor([0.1, 1.0, 10.0, 80.0]).double()
    assert (loss_of().lower(t, stage) / t).tolist() == pytest.approx(TABLE[stage], abs=6e-5)


def test_the_one_hour_version_is_nearly_consistent_at_once():
    t = torch.tensor([80.0]).double()
    assert float(loss_of(q=256, stages=1).lower(t, 0) / t) == pytest.approx(0.996, abs=1e-4)


def test_stages_are_equal_parts_of_the_training():
    loss = loss_of()
    assert [loss.stage(s) for s in (0, 99, 100, 699, 700, 800)] == [0, 0, 1, 6, 7, 7]


@torch.no_grad()
def test_where_r_is_zero_the_target_is_the_image():
    """Then the loss is that of a denoiser: |D(x + t z, t) - x| / t, the norm not squared."""
    student = student_of().train()
    loss = loss_of(student)
    x, noise = torch.rand(5, 1, 8, 8) * 2 - 1, torch.randn(5, 1, 8, 8)
    t = torch.full((5,), 0.8)
    found = loss.loss(x, t, torch.zeros(5), noise, None)
    wanted = (student(x + 0.8 * noise, t) - x).flatten(1).norm(dim=1) / 0.8
    assert torch.allclose(found, wanted, rtol=1e-4)


@torch.no_grad()
def test_both_points_of_a_pair_share_their_noise():
    student = student_of().train()
    loss = loss_of(student, c=0.06)
    x, noise = torch.rand(5, 1, 8, 8) * 2 - 1, torch.randn(5, 1, 8, 8)
    t, r = torch.full((5,), 0.8), torch.full((5,), 0.5)
    apart = student(x + 0.8 * noise, t) - student(x + 0.5 * noise, r)
    wanted = ((apart.square().flatten(1).sum(1) + 0.06**2).sqrt() - 0.06) / 0.3
    assert torch.allclose(loss.loss(x, t, r, noise, None), wanted, rtol=1e-5)


def test_levels_are_log_normal():
    loss, count, seen = loss_of(), 20_000, {}
    loss.loss = lambda images, t, r, noise, labels: seen.update(t=t, r=r)
    loss(torch.zeros(count, 1, 1, 1), None, 0, Draws(0, 0, count, (0, count), CPU))
    logs = seen["t"].log()
    assert float(logs.mean()) == pytest.approx(-1.1, abs=5 * 2 / math.sqrt(count))
    assert float(logs.std()) == pytest.approx(2.0, abs=5 * 2 / math.sqrt(2 * count))
    assert bool((seen["r"] < seen["t"]).all())


@torch.no_grad()
def test_training_has_plain_scalings_and_sampling_the_boundary():
    student, x = student_of(), torch.randn(2, 1, 8, 8)
    least = torch.full((2,), student.sigma_min)
    student.eval()
    assert isinstance(student, ConsistencyFunction)
    assert torch.allclose(student(x, least), x, atol=1e-6)
    student.train()
    plain = create("model", {"name": "edm", "shape": [1, 8, 8], "network": NETWORK}).build()
    plain.load_state_dict(student.state_dict())
    assert torch.equal(student(x, least), plain(x, least))
    assert not torch.allclose(student(x, least), x, atol=1e-5)


def test_a_perfect_denoiser_is_at_rest_while_r_is_zero():
    """By how much the loss of a Gaussian's ideal denoiser grows when scaled up or down."""
    teacher = GaussianDenoiser((1, 1, 1), spread=0.5)

    class Gain(ConsistencyFunction):
        def __init__(self):
            super().__init__(torch.nn.Identity(), (1, 1, 1))
            self.gain = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x, sigma, labels=None):
            gain = torch.where(sigma > 1e-3, self.gain, 1.0).reshape(-1, 1, 1, 1)
            return gain * teacher(x, sigma)

    student = Gain()
    loss = EasyConsistencyTuning(c=100.0).build(Setup(student, None, None, 1, CPU))
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 100_000, 1, 1, 1, generator=generator).double()
    x, t = 0.5 * x, torch.full((100_000,), 0.7).double()
    loss.loss(x, t, 0 * t, noise, None).mean().backward()
    at_rest = abs(float(student.gain.grad))
    student.gain.grad = None
    student.gain.data.fill_(1.1)
    loss.loss(x, t, 0 * t, noise, None).mean().backward()
    assert at_rest < abs(float(student.gain.grad)) / 20


def test_it_needs_the_teachers_weights(tmp_path):
    with pytest.raises(UserError, match="teacher"):
        run_recipes([RECIPE], out=tmp_path)


def test_the_recipe_starts_from_its_teacher():
    recipe = read_recipe(RECIPE)
    assert recipe.teacher == "edm/digits"
    assert recipe.built_objective().starts_from_teacher()
    student = create("model", recipe.model).build()
    loss = recipe.built_objective().build(Setup(student, None, None, recipe.steps, CPU))
    found = loss(torch.rand(8, 1, 8, 8), None, 0, Draws(0, 0, 8, (0, 8), CPU))
    assert found.shape == (8,)
    assert torch.isfinite(found).all()
