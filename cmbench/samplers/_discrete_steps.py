"""Strided steps of a discrete VP process, told in sigma-space, beside the Karras grid.

`leading`, `linspace` and `trailing` are diffusers', to the rounding; `uniform` and `quad` those of
DDIM's authors (https://arxiv.org/abs/2010.02502, appendix D.3); `even` improved DDPM's, which
keeps the first and the last step. Each starts from noise of unit variance, the process's own end.
"""

import itertools
import math
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import Denoiser
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser
from cmbench.samplers._ode import sigma_steps
from cmbench.samplers._respacing import kept_steps

__all__ = ["Grid", "Step", "Walk", "walk"]

Grid = Literal["karras", "leading", "linspace", "trailing", "even", "uniform", "quad"]


class Step(NamedTuple):
    """From noise level `now` to `then`, after which the state is multiplied by `carry`.

    `noisy` is false where no noise is added: at the process's step 0 and, but for diffusers'
    grids, wherever the walk ends.
    """

    now: float
    then: float
    carry: float = 1.0
    noisy: bool = True


class Walk(NamedTuple):
    """The factor of the first state's noise, and the steps."""

    start: float
    steps: list[Step]


def walk(
    denoiser: Denoiser,
    grid: Grid,
    steps: int,
    *,
    rho: float = 7.0,
    offset: int = 0,
    by_stride: bool = False,
    ends_clean: bool = True,
) -> Walk:
    """The steps of `grid` for a denoiser.

    Args:
        denoiser: Any for `karras`; of a discrete process for the others.
        grid: Its name.
        steps: Evaluations.
        rho: Exponent of the Karras grid.
        offset: Added to each step of `leading`.
        by_stride: Whether a step of diffusers' grids ends a whole stride T // steps below, as in
            its DDIM, though the next may start elsewhere; otherwise where the next starts.
        ends_clean: Whether the last step goes to zero, not to the process's first level.

    Raises:
        UserError: If the grid needs steps that the denoiser hasn't got.
    """
    if grid == "karras":
        sigmas = sigma_steps(denoiser, steps, rho)
        pairs = itertools.pairwise(sigmas)
        return Walk(sigmas[0], [Step(a, b, noisy=b > 0) for a, b in pairs])
    if not isinstance(denoiser, DiscreteVPDenoiser):
        raise UserError(
            f"a {type(denoiser).__name__} has no discrete steps, which grid '{grid}' counts",
            expected="grid: karras",
        )
    total = len(denoiser.levels)
    times = _times(grid, total, steps, offset)
    strided = by_stride and grid in _DIFFUSERS
    ends = [t - total // steps for t in times] if strided else [*times[1:], -1]
    path = _told(denoiser.levels, times, ends, ends_clean=ends_clean)
    if grid in _DIFFUSERS:
        return path
    return Walk(path.start, [*path.steps[:-1], path.steps[-1]._replace(noisy=False)])


_DIFFUSERS = ("leading", "linspace", "trailing")


def _told(levels: Tensor, times: list[int], ends: list[int], *, ends_clean: bool) -> Walk:
    last = 0.0 if ends_clean else float(levels[0])
    nows = [float(levels[t]) for t in times]
    thens = [float(levels[t]) if t >= 0 else last for t in ends]
    # What follows is in VP units: the state keeps its value there when its level is renamed.
    follows = [*nows[1:], 0.0]
    carries = [math.sqrt((1 + b**2) / (1 + a**2)) for a, b in zip(thens, follows, strict=True)]
    rows = zip(times, nows, thens, carries, strict=True)
    steps = [Step(now, then, carry, noisy=t > 0) for t, now, then, carry in rows]
    return Walk(math.sqrt(1 + nows[0] ** 2), steps)


def _times(grid: Grid, total: int, steps: int, offset: int) -> list[int]:
    """Steps of the process, descending."""
    if steps > total:
        raise UserError(f"the process has {total} steps, of which {steps} can't be kept")
    if grid == "even":
        return kept_steps(total, str(steps))[::-1]
    found: np.ndarray[Any, np.dtype[Any]]
    if grid == "leading":
        found = np.arange(steps) * float(total // steps) + offset
    elif grid == "linspace":
        found = np.linspace(0, total - 1, steps)
    elif grid == "trailing":
        found = np.arange(total, 0, -total / steps)[::-1].round() - 1
    elif grid == "uniform":
        found = np.arange(steps) * float(total // steps)
    else:
        found = np.floor(np.linspace(0, math.sqrt(0.8 * total), steps) ** 2)
    times = [round(t) for t in found.tolist()][::-1]
    if len(set(times)) < len(times) or times[0] >= total:
        raise UserError(
            f"grid '{grid}' can't keep {steps} different steps of {total}",
            expected="fewer steps, or another grid",
        )
    return times
