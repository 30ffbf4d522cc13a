"""Dormand and Prince's pair of orders 5 and 4, each row of a batch with step sizes of its own.

The step control is that of SciPy's `RK45` (Hairer, Norsett and Wanner, Solving Ordinary
Differential Equations I, II.4), whose coefficients these are, so that one row alone takes the
steps that `solve_ivp` takes. Rows that have arrived are not evaluated any more.
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
"""Derivative of rows y (K, n) at times (K,), given the rows' places in the batch (K,)."""

_SAFETY, _LEAST, _MOST, _POWER = 0.9, 0.2, 10.0, -0.2


class Solution(NamedTuple):
    """The end states (B, n) and the evaluations that each took (B,), int64."""

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
        start: First time, of all rows.
        end: Last time.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        shared: One error norm, and so one step size, for the whole batch.
        limit: Evaluations after which a row counts as stuck.

    Raises:
        UserError: If a step would be smaller than the time's resolution, or never ends.
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
        """One step of the active rows, accepted or not."""
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
        """Slopes (7, K, n) of the stages; the last is filled in by the caller."""
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
        grown = factor.clamp(max=_MOST)
        grown = torch.where(self.rejected[rows], grown.clamp(max=1.0), grown)
        self.h[rows] = h * torch.where(accepted, grown, factor.clamp(min=_LEAST))
        self.rejected[rows] = ~accepted
        taken = rows[accepted]
        self.t[taken], self.y[taken], self.f[taken] = then[accepted], after[accepted], f[accepted]

    def _first_step(self, rows: Tensor) -> Tensor:
        """Hairer's guess from the sizes of y, its slope and its curvature."""
        whole = (self.end - self.t).abs()
        scale = self.atol + self.y.abs() * self.rtol
        size, speed = self._norm(self.y / scale), self._norm(self.f / scale)
        small = (size < 1e-5) | (speed < 1e-5)
        h0 = torch.minimum(torch.where(small, 1e-6, 0.01 * size / speed), whole)
        step = self.direction * h0
        ahead = self.slope(self.y + step[:, None] * self.f, self.t + step, rows)
        bend = self._norm((ahead - self.f) / scale) / h0
        top = torch.maximum(speed, bend)
        h1 = torch.where(top <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), (0.01 / top) ** -_POWER)
        return torch.minimum(torch.minimum(100 * h0, h1), whole)

    def _norm(self, rows: Tensor) -> Tensor:
        """Root mean square of each row, or of all of them together."""
        found = rows.square().mean(1)
        return (found.mean().expand_as(found) if self.shared else found).sqrt()


def _weighted(weights: NDArray[np.float64], stages: Tensor) -> Tensor:
    """Weights times stages, summed in order: a BLAS product rounds by the batch's size."""
    total = float(weights[0]) * stages[0]
    for weight, stage in zip(weights[1:].tolist(), stages[1:], strict=False):
        total = total + weight * stage
    return total
