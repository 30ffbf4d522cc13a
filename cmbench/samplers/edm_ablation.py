r"""EDM's ablation sampler: earlier solvers, time steps, schedules and scalings in one algorithm.

EDM (https://arxiv.org/abs/2206.00364), Table 1 and Algorithms 1 and 2 in general form: the state
is x = s(t) (x0 + sigma(t) n), stepped in t. With vp/vp/vp it integrates Song et al.'s VP ODE, with
ve/ve/none their VE ODE, with iddpm/linear/none it is DDIM on iDDPM's levels.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.discrete_levels import iddpm_levels
from cmbench.denoise.sigma_grids import karras_grid
from cmbench.samplers._ode import denoise, start
from cmbench.samplers.base import Sampler

__all__ = ["EDMAblation"]

_VP_STEPS, _VP_BETA_D, _VP_BETA_MIN = 1e-3, 19.9, 0.1


class EDMAblation(Sampler):
    """x' = x + h ((1 - 1 / 2 alpha) d + d' / 2 alpha), d' at x + alpha h d; alpha 1 is Heun's."""

    steps: int = Field(default=18, ge=2, le=10_000, description="time steps before zero")
    solver: Literal["euler", "heun"] = "heun"
    alpha: float = Field(
        default=1.0, gt=0, le=1, description="position of the second slope in the step"
    )
    discretization: Literal["vp", "ve", "iddpm", "edm"] = "edm"
    schedule: Literal["vp", "ve", "linear"] = "linear"
    scaling: Literal["vp", "none"] = "none"
    sigma_min: float | None = Field(
        default=None, gt=0, description="least level; none: the discretization's"
    )
    sigma_max: float | None = Field(
        default=None, gt=0, description="greatest; none: the discretization's"
    )
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")
    churn: float = Field(default=0.0, ge=0, description="S_churn")
    noise_from: float = Field(default=0.0, ge=0, description="S_min")
    noise_to: float | None = Field(default=None, ge=0, description="S_max; none: no bound")
    noise_scale: float = Field(default=1.0, gt=0, description="S_noise")

    def nfe(self) -> int:
        """Two evaluations per step, one in the last; with Euler one per step."""
        return self.steps if self.solver == "euler" else 2 * self.steps - 1

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64; step i uses noise draw i + 1."""
        time, times = self._times(denoiser)
        x = start(noise, time.sigma(times[0]) * time.scale(times[0]))
        for i, (now, then) in enumerate(itertools.pairwise(times)):
            x, now = self._churned(denoiser, time, x, now, noise, i)
            h = then - now
            slope = time.slope(denoiser, x, now, labels)
            if self.solver == "euler" or then == 0:
                x = x + h * slope
                continue
            second = time.slope(denoiser, x + self.alpha * h * slope, now + self.alpha * h, labels)
            share = 1 / (2 * self.alpha)
            x = x + h * ((1 - share) * slope + share * second)
        return x

    def _churned(
        self, denoiser: Denoiser, time: "_Time", x: Tensor, now: float, noise: Noise, i: int
    ) -> tuple[Tensor, float]:
        """Adds noise to the state; returns it with its new time (Algorithm 2, lines 4 to 6)."""
        sigma = time.sigma(now)
        inside = self.noise_from <= sigma <= (math.inf if self.noise_to is None else self.noise_to)
        gamma = min(self.churn / self.steps, math.sqrt(2) - 1) if inside else 0.0
        raised = time.inverse(_rounded(denoiser, sigma * (1 + gamma)))
        x = time.scale(raised) / time.scale(now) * x
        added = max(time.sigma(raised) ** 2 - sigma**2, 0.0)
        if gamma > 0:
            fresh = noise.normal(i + 1).to(x.dtype) * self.noise_scale
            x = x + math.sqrt(added) * time.scale(raised) * fresh
        return x, raised

    def _times(self, denoiser: Denoiser) -> tuple["_Time", list[float]]:
        low, high = self._range(denoiser)
        time = _Time.fitted(self.schedule, self.scaling, low, high)
        levels = denoiser.round_sigma(self._levels(low, high)).tolist()
        return time, [*(time.inverse(level) for level in levels), 0.0]

    def _range(self, denoiser: Denoiser) -> tuple[float, float]:
        """Returns the discretization's least and greatest level, within the range of training."""
        vp = _Time("vp", "vp", _VP_BETA_D, _VP_BETA_MIN)
        lows = {"vp": vp.sigma(_VP_STEPS), "ve": 0.02, "iddpm": 0.002, "edm": 0.002}
        highs = {"vp": vp.sigma(1.0), "ve": 100.0, "iddpm": 81.0, "edm": 80.0}
        known = getattr(denoiser, "trained_range", (0.0, math.inf))
        low = max(self.sigma_min or lows[self.discretization], known[0])
        return low, min(self.sigma_max or highs[self.discretization], known[1])

    def _levels(self, low: float, high: float) -> Tensor:
        """Returns the noise levels, descending, (steps,) float64 (Table 1, "Time steps")."""
        share = torch.arange(self.steps, dtype=torch.float64) / (self.steps - 1)
        if self.discretization == "edm":
            return karras_grid(self.steps, low, high, self.rho)
        if self.discretization == "ve":
            return high * (low / high) ** share
        if self.discretization == "vp":
            vp = _Time.fitted("vp", "vp", low, high)
            times = (1 + share * (_VP_STEPS - 1)).tolist()
            return torch.tensor([vp.sigma(t) for t in times], dtype=torch.float64)
        levels = iddpm_levels()
        kept = levels[(levels >= low) & (levels <= high)]
        if len(kept) < 2:
            raise UserError(f"edm_ablation: iDDPM has no levels between {low:g} and {high:g}")
        return kept[((len(kept) - 1) * share).round().long()]


@dataclass(frozen=True)
class _Time:
    """The noise level sigma(t), its inverse and derivative, and the scale s(t) of the state."""

    schedule: str
    scaling: str
    beta_d: float = 0.0
    beta_min: float = 0.0

    @classmethod
    def fitted(cls, schedule: str, scaling: str, low: float, high: float) -> "_Time":
        """Finds the VP constants for which sigma is `low` at t = 1e-3 and `high` at t = 1."""
        first, last = math.log1p(low**2), math.log1p(high**2)
        beta_d = 2 * (first / _VP_STEPS - last) / (_VP_STEPS - 1)
        return cls(schedule, scaling, beta_d, last - beta_d / 2)

    def sigma(self, t: float) -> float:
        """Returns the noise level at time t."""
        if self.schedule == "vp":
            return math.sqrt(math.expm1(self.beta_d * t * t / 2 + self.beta_min * t))
        return math.sqrt(t) if self.schedule == "ve" else t

    def inverse(self, sigma: float) -> float:
        """Returns the time at which the noise level is sigma."""
        if self.schedule == "vp":
            root = math.sqrt(self.beta_min**2 + 2 * self.beta_d * math.log1p(sigma**2))
            return (root - self.beta_min) / self.beta_d
        return sigma**2 if self.schedule == "ve" else sigma

    def scale(self, t: float) -> float:
        """Returns the scale s(t)."""
        return 1 / math.sqrt(1 + self.sigma(t) ** 2) if self.scaling == "vp" else 1.0

    def slope(self, denoiser: Denoiser, x: Tensor, t: float, labels: Tensor | None) -> Tensor:
        """dx/dt = (sigma' / sigma + s' / s) x - s sigma' / sigma D(x / s; sigma) (Algorithm 1)."""
        sigma, scale = self.sigma(t), self.scale(t)
        growth = self._growth(t, sigma) / sigma
        shrink = -sigma * self._growth(t, sigma) * scale**2 if self.scaling == "vp" else 0.0
        clean = denoise(denoiser, x / scale, sigma, labels)
        return (growth + shrink) * x - growth * scale * clean

    def _growth(self, t: float, sigma: float) -> float:
        """Returns the derivative of sigma in t."""
        if self.schedule == "vp":
            return (self.beta_min + self.beta_d * t) * (sigma + 1 / sigma) / 2
        return 1 / (2 * sigma) if self.schedule == "ve" else 1.0


def _rounded(denoiser: Denoiser, sigma: float) -> float:
    return float(denoiser.round_sigma(torch.tensor([sigma], dtype=torch.float64))[0])
