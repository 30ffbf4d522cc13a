"""Shared parts of the plugin contract's checks: a broken rule, and a tolerance."""

import torch
from torch import Tensor

__all__ = ["Broken", "close"]


class Broken(Exception):
    """Raised by a rule that does not hold, with the observation and its fix."""

    def __init__(self, seen: str, fix: str) -> None:
        super().__init__(seen)
        self.seen, self.fix = seen, fix


def close(one: Tensor, other: Tensor) -> bool:
    """Compares up to the rounding of other kernels, which grows with the largest value."""
    scale = max(1.0, float(other.abs().max()))
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * scale)
