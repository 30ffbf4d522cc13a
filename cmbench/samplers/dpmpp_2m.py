"""DPM-Solver++(2M) (https://arxiv.org/abs/2211.01095) in sigma-space.

Second order in h = ln(s / s') from the last two evaluations; the first step and the last, to zero,
are of first order. NFE = steps.
"""

import math
from typing import ClassVar

from torch import Tensor

from cmbench.samplers._ode import Evaluate, GridSampler, Known
from cmbench.samplers.base import Sampler
from cmbench.samplers.euler import Euler

__all__ = ["DPMpp2M"]


class DPMpp2M(GridSampler):
    r"""x' = (s'/s) x + (1 - e^{-h}) D', D' = D + (D - D_before) h / (2 h_before)."""

    order: ClassVar[int | None] = 2

    def prefixes(self) -> tuple[Sampler, ...]:
        """The call at the start of the Karras grid, whatever its length."""
        return (Euler(steps=1),)

    def step(
        self, evaluate: Evaluate, x: Tensor, now: float, then: float, past: list[Known]
    ) -> Tensor:
        """Extrapolates D from this level and the one before; a step to zero returns D."""
        clean = evaluate(x, now)
        if then == 0:
            return clean
        h = math.log(now / then)
        extrapolated = clean
        for level, before in past:
            step_before = math.log(level / now)
            extrapolated = clean + (clean - before) * (h / (2 * step_before))
        past[:] = [(now, clean)]
        return then / now * x + (1 - math.exp(-h)) * extrapolated
