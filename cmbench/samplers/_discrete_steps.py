"""Strided steps of a discrete VP process, in sigma-space, and the Karras grid.

`leading`, `linspace` and `trailing` follow diffusers, rounding included; `uniform` and `quad` are
those of DDIM's authors (https://arxiv.org/abs/2010.02502, appendix D.3); `even` is improved
DDPM's, which keeps the first and the last step. Each grid starts from noise of unit variance, the
end of the VP process.
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
    """Step from noise level `now` to `then`, after which the state is multiplied by `carry`.

    `noisy` is false where no noise is added: at the process's step 0 and at the end of the walk,
    except for diffusers' grids.
    """

    now: float
    then: float
    carry: float = 1.0
    noisy: bool = True


class Walk(NamedTuple):
    """The first state's noise level and the steps that follow."""

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
    """Returns the steps of `grid` for a denoiser.

    Args:
        denoiser: Any denoiser for `karras`; one of a discrete process for the other grids.
        grid: Name of the grid.
        steps: Number of evaluations.
        rho: Exponent of the Karras grid.
        offset: Number added to each step of `leading`.
        by_stride: If true, a step of diffusers' grids ends exactly T // steps below its start, as
            in its DDIM, even where the next step starts elsewhere; otherwise it ends where the
            next one starts.
        ends_clean: If true, the last step goes to zero; otherwise to the process's first level.

    Raises:
        UserError: If the grid needs steps that the denoiser does not have.
    """
    if grid == "karras":
        sigmas = sigma_steps(denoiser, steps, rho)
        pairs = itertools.pairwise(sigmas)
        return Walk(sigmas[0], [Step(a, b, noisy=b > 0) for a, b in pairs])
    if not isinstance(denoiser, DiscreteVPDenoiser):
        raise UserError(
            f"grid '{grid}' needs discrete steps, which a {type(denoiser).__name__} does not have",
            expected="grid: karras",
        )
    total = len(denoiser.levels)
    times = _times(grid, total, steps, offset)
    strided = by_stride and grid in _DIFFUSERS
    ends = [t - total // steps for t in times] if strided else [*times[1:], -1]
    path = _steps_between(denoiser.levels, times, ends, ends_clean=ends_clean)
    if grid in _DIFFUSERS:
        return path
    return Walk(path.start, [*path.steps[:-1], path.steps[-1]._replace(noisy=False)])


_DIFFUSERS = ("leading", "linspace", "trailing")


def _steps_between(levels: Tensor, times: list[int], ends: list[int], *, ends_clean: bool) -> Walk:
    last = 0.0 if ends_clean else float(levels[0])
    nows = [float(levels[t]) for t in times]
    thens = [float(levels[t]) if t >= 0 else last for t in ends]
    # A step may end at another level than the next one starts at. The VP state x / sqrt(1 + s^2)
    # keeps its value there, so the sigma-space state is rescaled by sqrt((1 + b^2) / (1 + a^2)).
    starts = [*nows[1:], 0.0]
    carries = [math.sqrt((1 + b**2) / (1 + a**2)) for a, b in zip(thens, starts, strict=True)]
    rows = zip(times, nows, thens, carries, strict=True)
    steps = [Step(now, then, carry, noisy=t > 0) for t, now, then, carry in rows]
    return Walk(math.sqrt(1 + nows[0] ** 2), steps)


def _times(grid: Grid, total: int, steps: int, offset: int) -> list[int]:
    """Returns the kept steps of the process, in descending order."""
    if steps > total:
        raise UserError(f"the process has {total} steps, fewer than the {steps} to keep")
    if grid == "even":
        return kept_steps(total, str(steps))[::-1]
    grid_points: np.ndarray[Any, np.dtype[Any]]
    if grid == "leading":
        grid_points = np.arange(steps) * float(total // steps) + offset
    elif grid == "linspace":
        grid_points = np.linspace(0, total - 1, steps)
    elif grid == "trailing":
        grid_points = np.arange(total, 0, -total / steps)[::-1].round() - 1
    elif grid == "uniform":
        grid_points = np.arange(steps) * float(total // steps)
    else:
        grid_points = np.floor(np.linspace(0, math.sqrt(0.8 * total), steps) ** 2)
    times = [round(t) for t in grid_points.tolist()][::-1]
    if len(set(times)) < len(times) or times[0] >= total:
        raise UserError(
            f"grid '{grid}' can't keep {steps} different steps of {total}",
            expected="fewer steps, or another grid",
        )
    return times
