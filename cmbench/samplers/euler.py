"""Euler's method on the probability-flow ODE dx/dsigma = (x - D) / sigma; equal to DDIM (eta 0).

EDM (https://arxiv.org/abs/2206.00364), Algorithm 1 without the correction. NFE = steps.
"""

from typing import ClassVar

from torch import Tensor

from cmbench.samplers._ode import Evaluate, GridSampler, Known
from cmbench.samplers.base import Sampler

__all__ = ["Euler"]


class Euler(GridSampler):
    r"""x' = x + (s' - s)(x - D(x; s)) / s over the Karras grid, ending at zero."""

    order: ClassVar[int | None] = 1

    def prefixes(self) -> tuple[Sampler, ...]:
        """The call at the start of the Karras grid, whatever its length."""
        return (Euler(steps=1),)

    def step(
        self, evaluate: Evaluate, x: Tensor, now: float, then: float, past: list[Known]
    ) -> Tensor:
        """Follows the slope at level `now`."""
        return x + (then - now) / now * (x - evaluate(x, now))
