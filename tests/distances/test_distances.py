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
