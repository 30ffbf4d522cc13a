"""Step search and editing against what they must find and keep."""

import pytest
import torch

from cmbench.core.loader import create
from cmbench.core.random import Noise
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.run.edit import edit_sheet, load_denoiser
from cmbench.run.search_steps import search_points
from cmbench.samplers._editing import colourise, edit, inpaint, super_resolve
from cmbench.testing.oracles import GaussianConsistency


@pytest.mark.parametrize("valley", [1, 5, 17, 30, 38])
def test_the_search_finds_the_valley_with_few_scores(valley):
    calls = []

    def score(indices):
        calls.append(indices)
        return float(abs(indices[1] - valley)) if len(indices) == 3 else 99.0

    found = search_points(score, grid=40, nfe=2)
    assert found.indices == (0, valley, 39)
    assert len(calls) == len(set(calls)) <= 20


def test_the_search_adds_points_in_order():
    found = search_points(lambda ts: -float(len(ts)) + ts[-2] / 100, grid=18, nfe=4)
    assert found.indices[0] == 0
    assert found.indices[-1] == 17
    assert list(found.indices) == sorted(set(found.indices))
    assert len(found.indices) == 5
    with pytest.raises(ValueError, match="room for 1 to 2"):
        search_points(lambda ts: 0.0, grid=3, nfe=3)


def test_what_is_known_is_kept():
    torch.manual_seed(0)
    f = GaussianConsistency((3, 8, 8))
    images = (torch.rand(4, 3, 8, 8) * 2 - 1).double()
    noise = Noise(0, range(4), (3, 8, 8), dtype=torch.float64)
    sigmas = karras_grid(6).tolist()
    luma = torch.tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64)
    grey, replace = colourise(images)
    made = edit(f, grey + 80 * noise.normal(0), sigmas, noise, replace)
    kept = torch.einsum("bchw,c->bhw", made - images, luma)
    assert kept.abs().max() < 1e-9
    _, replace = super_resolve(images, 2)
    made = edit(f, images + 80 * noise.normal(0), sigmas, noise, replace)
    gap = torch.nn.functional.avg_pool2d(made - images, 2)
    assert gap.abs().max() < 1e-9
    missing = torch.zeros(1, 1, 8, 8).double()
    missing[..., 2:6, 2:6] = 1
    _, replace = inpaint(images, missing)
    made = edit(f, images + 80 * noise.normal(0), sigmas, noise, replace)
    assert ((made - images) * (1 - missing)).abs().max() < 1e-9
    assert ((made - images) * missing).abs().mean() > 0.05


@pytest.mark.parametrize("task", ["inpaint", "super-resolve", "interpolate", "denoise"])
def test_every_task_makes_a_sheet(task):
    denoiser = load_denoiser("oracle/consistency", None, torch.device("cpu"))
    images = create("dataset", "digits").open()
    sheet = edit_sheet(denoiser, images, task, count=4, steps=3, seed=0)
    assert sheet.shape == (3 * 9 - 1, 4 * 9 - 1, 3)
