"""An LPIPS-like distance for 8x8 digits: feature maps of a small digits classifier.

As in LPIPS (https://arxiv.org/abs/1801.03924), maps are normalised over channels; differences are
squared, averaged over space and summed over layers, with the pixels as one more layer. The network
is not the one that scores samples (see nets/digits_cnn).
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.distances.base import Distance
from cmbench.nets.digits_cnn import DigitsConvNet

__all__ = ["DigitsLPIPS"]

_WEIGHTS = Path(__file__).parent / "data" / "digits_cnn.safetensors"


class DigitsLPIPS(Distance):
    """LPIPS-like distance; `pixels` is the weight of the pixels' squared difference."""

    pixels: float = 1.0

    def build(self, device: torch.device) -> nn.Module:
        """Builds the distance with its frozen classifier."""
        state = load_file(_WEIGHTS)
        net = DigitsConvNet(len(state["convolutions.0.weight"]))
        net.load_state_dict(state)
        return _DigitsLPIPS(net.eval().requires_grad_(False), self.pixels).to(device)


class _DigitsLPIPS(nn.Module):
    def __init__(self, net: DigitsConvNet, pixels: float) -> None:
        super().__init__()
        self.net, self.pixels = net, pixels

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != (1, 8, 8):
            raise UserError(f"digits_lpips reads (1, 8, 8) images, not {tuple(x.shape[1:])}")
        total = self.pixels * (x - y).square().flatten(1).mean(1)
        for a, b in zip(self.net.maps(x), self.net.maps(y), strict=True):
            total = total + (_unit(a) - _unit(b)).square().sum(1).flatten(1).mean(1)
        return total


def _unit(maps: Tensor) -> Tensor:
    # The epsilon is inside the root because a norm has no finite gradient at zero.
    return maps * (maps.square().sum(1, keepdim=True) + 1e-8).rsqrt()
