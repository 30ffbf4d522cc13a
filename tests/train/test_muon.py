"""Muon: orthogonal updates for hidden convolutions, Adam's for the rest."""

import copy

import pytest
import torch
from torch import nn

from cmbench.train.muon import Muon, hidden_convolutions, orthogonal


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 8, 1), nn.Conv2d(8, 3, 3)
    )


def gradients(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(12, 72), (72, 12), (16, 16)])
def test_orthogonal_keeps_the_singular_vectors_and_levels_their_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ orthogonal(matrix, iterations=8) @ vt.mT
    values = inner.diagonal()
    assert ((values > 0.65) & (values < 1.25)).all()
    assert (inner - values.diag()).abs().max() < 1e-8


def test_a_zero_matrix_stays_zero():
    assert orthogonal(torch.zeros(4, 9)).abs().max() == 0


def test_the_first_and_last_convolution_are_left_to_adam():
    net = network()
    chosen = hidden_convolutions(net.parameters())
    assert len(chosen) == 2
    assert chosen[0] is net[1].weight
    assert chosen[1] is net[2].weight


def test_a_matrix_moves_as_under_torch_muon():
    """torch's iterates in bfloat16: three digits."""
    net = network()
    weight = net[1].weight
    flat = nn.Parameter(weight.detach().flatten(1).clone())
    ours = Muon(net.parameters(), lr=0.01, weight_decay=0.1)
    theirs = torch.optim.Muon(
        [flat], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    before = flat.detach().clone()
    for seed in range(3):
        gradients(net, seed)
        flat.grad = weight.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    moved, wanted = weight.detach().flatten(1) - before, flat.detach() - before
    assert (moved - wanted).norm() < 0.03 * wanted.norm()


def test_the_rest_moves_as_under_adam_to_the_bit():
    net, twin = network(), network()
    ours = Muon(net.parameters(), lr=0.01, foreach=True)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.0, foreach=True)
    for seed in range(3):
        gradients(net, seed)
        gradients(twin, seed)
        ours.step()
        theirs.step()
    for name, parameter in net.named_parameters():
        same = torch.equal(parameter, dict(twin.named_parameters())[name])
        assert same == (name not in ("1.weight", "2.weight")), name


def test_its_state_is_saved_and_read():
    net, twin = network(), network()
    one, two = Muon(net.parameters(), lr=0.01), Muon(twin.parameters(), lr=0.01)
    gradients(net, 0)
    one.step()
    twin.load_state_dict(net.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for module, optimiser in ((net, one), (twin, two)):
        gradients(module, 1)
        optimiser.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True))
