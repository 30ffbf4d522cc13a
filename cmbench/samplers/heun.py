"""Heun's method on the probability-flow ODE: EDM's deterministic sampler.

EDM (https://arxiv.org/abs/2206.00364), Algorithm 1. The last step, to zero, is Euler's, so
NFE = 2 steps - 1: 18 steps are 35 evaluations.
"""

from typing import ClassVar

from torch import Tensor

from cmbench.samplers._ode import (
    Evaluate,
    GridSampler,
    Known,
    heun_step,
)
from cmbench.samplers.base import Sampler
from cmbench.samplers.euler import Euler

__all__ = ["Heun"]


class Heun(GridSampler):
    r"""x' = x + (s' - s)(d + d') / 2 with d = (x - D) / s and d' at Euler's point."""

    order: ClassVar[int | None] = 2

    def nfe(self) -> int:
        """Two evaluations per step, one in the last."""
        return 2 * self.steps - 1

    def prefixes(self) -> tuple[Sampler, ...]:
        """The call at the start of the Karras grid, whatever its length."""
        return (Euler(steps=1),)

    def step(
        self, evaluate: Evaluate, x: Tensor, now: float, then: float, past: list[Known]
    ) -> Tensor:
        """Averages the slopes at `now` and at Euler's point (Algorithm 1, lines 4 to 8)."""
        return heun_step(evaluate, x, now, then)
