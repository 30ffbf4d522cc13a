"""Preconditioning, the boundary condition, grids and oracles against closed forms."""

import pytest
import torch
from torch import nn

from cmbench.denoise.precondition import ConsistencyFunction, EDMDenoiser
from cmbench.denoise.sigma_grids import karras_grid, log_snr_grid
from cmbench.testing.oracles import GaussianConsistency, GaussianDenoiser, PointsDenoiser

KARRAS_18 = [80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.400935, 5.315195, 3.256822,
             1.923340, 1.088171, 0.5853481, 0.2964423, 0.1395165, 0.05994731, 0.02293452,
             0.007527964, 0.002]  # fmt: skip


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1).double()

    def forward(self, x, c_noise, labels=None):
        return self.conv(x) + c_noise[:, None, None, None]


def test_karras_grid_has_the_published_values():
    assert torch.allclose(karras_grid(18), torch.tensor(KARRAS_18).double(), rtol=1e-5)
    assert karras_grid(1).tolist() == [80.0]
    steps = log_snr_grid(5).log().diff()
    assert torch.allclose(steps, steps[:1].expand(4))


def test_boundary_condition_is_exact():
    f = ConsistencyFunction(Net(), (1, 4, 4))
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    assert torch.equal(f(x, torch.full((3,), 0.002, dtype=torch.float64)), x)
    assert torch.allclose(f(x, torch.full((3,), 0.002)), x, atol=1e-9)  # 0.002 in float32
    assert not torch.allclose(f(x, torch.full((3,), 0.003)), x, atol=1e-9)


def test_c_out_of_a_consistency_function_has_sigma_in_its_root():
    f = ConsistencyFunction(Net(), (1, 4, 4))
    _, c_out = f.scalings(torch.tensor([1.0], dtype=torch.float64))
    assert float(c_out) == pytest.approx(0.998 * 0.5 / 1.25**0.5, rel=1e-12)


def test_edm_denoiser_is_its_formula():
    net = Net()
    d = EDMDenoiser(net, (1, 4, 4))
    x, s = torch.randn(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0.3, 7.0]).double()
    got = d(x, s)
    for i in range(2):
        total = s[i] ** 2 + 0.25
        raw = net(x[i : i + 1] / total.sqrt(), s[i : i + 1].log() / 4)
        want = 0.25 / total * x[i : i + 1] + s[i] * 0.5 / total.sqrt() * raw
        assert torch.allclose(got[i : i + 1], want, rtol=1e-12)


def test_teacher_and_student_share_their_names():
    assert list(EDMDenoiser(Net(), (1, 4, 4)).state_dict()) == list(
        ConsistencyFunction(Net(), (1, 4, 4)).state_dict()
    )


def test_gaussian_oracle_is_consistent_along_its_trajectory():
    ideal = GaussianDenoiser((1, 2, 2), mean=0.2, spread=0.5)
    f = GaussianConsistency((1, 2, 2), mean=0.2, spread=0.5)
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64) * 80
    ends = []
    for then in (80.0, 9.0, 1.0, 0.05):
        there = ideal.carried(x, 80.0, then)
        ends.append(f(there, torch.full((4,), then).double()))
    assert all(torch.allclose(e, ends[0], atol=1e-10) for e in ends)
    # The score that the denoiser implies is the score of N(mu, s^2 + sigma^2).
    sigma = torch.full((4,), 3.0).double()
    score = (ideal(x, sigma) - x) / 9
    assert torch.allclose(score, -(x - 0.2) / (0.25 + 9), atol=1e-12)


def test_points_oracle_is_the_posterior_mean():
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.5]]).reshape(2, 1, 1, 2).double()
    d = PointsDenoiser(points)
    x = torch.tensor([[0.3, -0.2]]).reshape(1, 1, 1, 2).double()
    got = d(x, torch.tensor([0.7]).double())
    logs = [-(((x - p) ** 2).sum() / (2 * 0.49)) for p in points]
    w = torch.softmax(torch.stack(logs), 0)
    assert torch.allclose(got[0], w[0] * points[0] + w[1] * points[1], atol=1e-12)
    assert torch.allclose(d(x, torch.tensor([1e-3]).double())[0], points[1], atol=1e-9)
