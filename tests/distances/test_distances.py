"""What every distance without weights promises."""

import pytest
import torch

from cmbench.core.loader import create


@pytest.mark.parametrize("name", ["l1", "l2", "pseudo_huber"])
def test_distance_is_zero_and_smooth_at_equality_and_symmetric(name: str) -> None:
    distance = create("distance", name).build(torch.device("cpu"))
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    same = distance(x, x.detach())
    same.sum().backward()
    assert same.shape == (3,)
    assert torch.equal(same, torch.zeros_like(same))
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert torch.allclose(distance(x, y), distance(y, x))


def test_distances_equal_their_formulas_on_constant_images() -> None:
    x, y = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 3, 4, 4)
    device = torch.device("cpu")
    assert create("distance", "l1").build(device)(x, y).item() == pytest.approx(0.5)
    assert create("distance", "l2").build(device)(x, y).item() == pytest.approx(0.25)
    huber = create("distance", {"name": "pseudo_huber", "c": 2.0}).build(device)
    assert huber(x, y).item() == pytest.approx(2.0)


def test_stlpips_sees_a_shifted_picture_as_nearer_than_another() -> None:
    import sys

    distance = create("distance", "stlpips").build(torch.device("cpu"))
    for name in ("IPython", "torchsummary"):  # no empty stand-in is left behind
        assert name not in sys.modules or hasattr(sys.modules[name], "__path__")
    draw = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(2, 3, 5, 5, generator=draw) * 2 - 1, (33, 33), mode="bicubic"
    )
    first, shifted, other = smooth[:1, ..., 1:], smooth[:1, ..., :-1], smooth[1:, ..., 1:]
    x = first[..., :32, :].clone().requires_grad_(True)
    same = distance(x, first[..., :32, :])
    assert same.shape == (1,)
    assert float(same.detach()) == pytest.approx(0.0, abs=1e-6)
    same.sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    near, far = (
        float(distance(first[..., :32, :], y[..., :32, :]).detach()) for y in (shifted, other)
    )
    assert 0 < near < far
