"""Dormand and Prince's pair of orders 5 and 4, with step sizes per row of a batch.

The coefficients and the step control are those of SciPy's `RK45` (Hairer, Norsett and Wanner,
Solving Ordinary Differential Equations I, II.4), so that a single row takes the same steps as in
`solve_ivp`. Rows that have reached the end are not evaluated any more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import RK45
from torch import Tensor

from cmbench.core.errors import UserError

__all__ = ["Solution", "integrate"]

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Derivative of rows y (K, n) at times (K,), given the rows' indices in the batch (K,)."""

_SAFETY, _LEAST, _MOST, _POWER = 0.9, 0.2, 10.0, -0.2


class Solution(NamedTuple):
    """The end states (B, n) and the number of evaluations of each (B,), int64."""

    y: Tensor
    evaluations: Tensor


def integrate(
    slope: Slope,
    y: Tensor,
    start: float,
    end: float,
    *,
    rtol: float,
    atol: float,
    shared: bool = False,
    limit: int = 100_000,
) -> Solution:
    """Integrates dy/dt = slope from `start` to `end`, forwards or backwards.

    Args:
        slope: The derivative.
        y: First states, (B, n), float64.
        start: First time, the same for all rows.
        end: Last time.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        shared: If true, the batch has one error norm and so one step size.
        limit: Maximum number of evaluations of a row.

    Raises:
        UserError: If a step is below the resolution of float64 time, or `limit` is exceeded.
    """
    rows = torch.arange(len(y), device=y.device)
    walk = _Walk(slope, y.clone(), end, 1.0 if end > start else -1.0, rtol, atol, shared)
    walk.begin(start)
    while len(active := rows[(walk.t - end).abs() > 0]):
        walk.attempt(active)
        if int(walk.spent.max()) > limit:
            raise UserError(f"RK45 spent {limit:,} evaluations", fix="a greater rtol or atol")
    return Solution(walk.y, walk.spent)


@dataclass
class _Walk:
    slope: Slope
    y: Tensor
    end: float
    direction: float
    rtol: float
    atol: float
    shared: bool

    def begin(self, start: float) -> None:
        rows = torch.arange(len(self.y), device=self.y.device)
        self.t = self.y.new_full((len(rows),), start)
        self.spent = torch.full_like(rows, 2)
        self.rejected = torch.zeros_like(rows, dtype=torch.bool)
        self.f = self.slope(self.y, self.t, rows)
        self.h = self._first_step(rows)

    def attempt(self, rows: Tensor) -> None:
        """Tries one step of the active rows, which is accepted or rejected."""
        t, y = self.t[rows], self.y[rows]
        least = 10 * (torch.nextafter(t, t + self.direction) - t).abs()
        if bool((self.h[rows] < least)[self.rejected[rows]].any()):
            raise UserError(
                f"RK45 needs a step below the time's resolution at t = {float(t[0]):g}",
                fix="a greater rtol or atol",
            )
        length = torch.maximum(self.h[rows], least)
        then = t + self.direction * length
        then = torch.where(self.direction * (then - self.end) > 0, self.end, then)
        h = then - t
        stages = self._stages(rows, t, y, h)
        after = y + h[:, None] * _weighted(RK45.B, stages)
        stages[-1] = self.slope(after, then, rows)
        self.spent[rows] += 6
        scale = self.atol + torch.maximum(y.abs(), after.abs()) * self.rtol
        error = _weighted(RK45.E, stages) * h[:, None]
        self._judge(rows, h.abs(), self._norm(error / scale), then, after, stages[-1])

    def _stages(self, rows: Tensor, t: Tensor, y: Tensor, h: Tensor) -> Tensor:
        """Returns the slopes (7, K, n) of the stages; the caller fills in the last one."""
        stages = y.new_zeros(7, *y.shape)
        stages[0] = self.f[rows]
        for s in range(1, 6):
            share = _weighted(RK45.A[s, :s], stages)
            stages[s] = self.slope(y + h[:, None] * share, t + float(RK45.C[s]) * h, rows)
        return stages

    def _judge(
        self, rows: Tensor, h: Tensor, norm: Tensor, then: Tensor, after: Tensor, f: Tensor
    ) -> None:
        accepted = norm < 1
        factor = _SAFETY * norm.clamp(min=1e-300) ** _POWER
        growth = factor.clamp(max=_MOST)
        # No growth right after a rejected step (Hairer, II.4).
        growth = torch.where(self.rejected[rows], growth.clamp(max=1.0), growth)
        self.h[rows] = h * torch.where(accepted, growth, factor.clamp(min=_LEAST))
        self.rejected[rows] = ~accepted
        moved = rows[accepted]
        self.t[moved], self.y[moved], self.f[moved] = then[accepted], after[accepted], f[accepted]

    def _first_step(self, rows: Tensor) -> Tensor:
        """Returns Hairer's first step from the norms of y, its slope and its curvature (II.4)."""
        interval = (self.end - self.t).abs()
        scale = self.atol + self.y.abs() * self.rtol
        size, speed = self._norm(self.y / scale), self._norm(self.f / scale)
        small = (size < 1e-5) | (speed < 1e-5)
        h0 = torch.minimum(torch.where(small, 1e-6, 0.01 * size / speed), interval)
        step = self.direction * h0
        ahead = self.slope(self.y + step[:, None] * self.f, self.t + step, rows)
        curvature = self._norm((ahead - self.f) / scale) / h0
        top = torch.maximum(speed, curvature)
        h1 = torch.where(top <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / top) ** -_POWER)
        return torch.minimum(torch.minimum(100 * h0, h1), interval)

    def _norm(self, rows: Tensor) -> Tensor:
        """Returns the root mean square per row, or of the batch if its steps are shared."""
        squares = rows.square().mean(1)
        return (squares.mean().expand_as(squares) if self.shared else squares).sqrt()


def _weighted(weights: NDArray[np.float64], stages: Tensor) -> Tensor:
    """Returns the weighted sum of stages, in order: a BLAS product's rounding depends on K."""
    total = float(weights[0]) * stages[0]
    for weight, stage in zip(weights[1:].tolist(), stages[1:], strict=False):
        total = total + weight * stage
    return total
