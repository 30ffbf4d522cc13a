"""The compact U-Net at widths that no power of two divides."""

import torch

from cmbench.core.loader import create


def test_any_even_widths_build_and_run() -> None:
    spec = {"name": "compact_unet", "channels": [24, 32, 40], "unshuffle": 2, "attention": [2]}
    net = create("network", spec).build((3, 16, 16), 0)
    assert net(torch.zeros(2, 3, 16, 16), torch.zeros(2)).shape == (2, 3, 16, 16)
