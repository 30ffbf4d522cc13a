"""What the checks of the plugin contract share."""

import torch
from torch import Tensor

__all__ = ["Broken", "close"]


class Broken(Exception):
    """A rule that does not hold: what was seen, and what to do."""

    def __init__(self, seen: str, fix: str) -> None:
        super().__init__(seen)
        self.seen, self.fix = seen, fix


def close(one: Tensor, other: Tensor) -> bool:
    """Equal up to the rounding of other kernels, which grows with the largest value."""
    scale = max(1.0, float(other.abs().max()))
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * scale)
