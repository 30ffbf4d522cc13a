r"""UniPC (Zhao et al. 2023, https://arxiv.org/abs/2302.04867) in sigma-space, predicting D.

With h = ln(s / s'), B = -h (bh1) or e^{-h} - 1 (bh2), and divided differences of D to earlier
levels at distance r_k = ln(s / s_k) / h, D_k = (D(s_k) - D(s)) / r_k:

    x' = (s' / s) x + (1 - e^{-h}) D - B sum_k rho_k D_k

rho solves sum_k r_k^{i-1} rho_k = b_i. The corrector repeats the step with D at x' among the
differences, an evaluation that the next step needs anyway: NFE = steps. A predictor of order p
with its corrector converges with order p + 1, but at most 3, which the first step, of order 1 and
corrected, permits. The last step, to zero, returns D.
"""

import math
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.denoise.sigma_grids import log_snr_grid
from cmbench.samplers._ode import denoise, sigma_steps, start
from cmbench.samplers.base import Sampler
from cmbench.samplers.euler import Euler

__all__ = ["UniPC"]


class UniPC(Sampler):
    """Multi-step solver whose order rises from 1 at the start and falls again at the end.

    The paper's runs on CIFAR-10 use order 3 with bh1 on levels even in ln sigma; diffusers'
    default is order 2 with bh2 on its own steps.
    """

    order: ClassVar[int | None] = 3

    steps: Steps = Field(default=18, description="noise levels before zero")
    solver_order: Literal[1, 2, 3] = Field(default=2, description="order of the predictor")
    variant: Literal["bh1", "bh2"] = Field(default="bh1", description="B(h): -h or e^-h - 1")
    corrector: bool = Field(default=True, description="correct each step; false: UniP")
    spacing: Literal["log_snr", "karras"] = Field(
        default="log_snr", description="spacing of the levels"
    )
    rho: float = Field(default=7.0, gt=0, description="exponent of the Karras grid")

    def nfe(self) -> int:
        """One evaluation per step."""
        return self.steps

    def prefixes(self) -> tuple[Sampler, ...]:
        """The call at the start of the Karras grid or of the levels even in ln sigma."""
        return (Euler(steps=1) if self.spacing == "karras" else UniPC(steps=1),)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64."""
        sigmas = self._levels(denoiser)
        x = start(noise, sigmas[0])
        past: list[_Known] = []
        before, used = x, 0
        for i, now in enumerate(sigmas[:-1]):
            clean = denoise(denoiser, x, now, labels)
            if i == self.steps - 1:
                return clean
            if i and self.corrector:
                x = self._advance(before, past[-used:], now, clean)
            past.append(_Known(now, clean))
            before, used = x, min(self.solver_order, i + 1, self.steps - i)
            x = self._advance(x, past[-used:], sigmas[i + 1], None)
        return x

    def _levels(self, denoiser: Denoiser) -> list[float]:
        if self.spacing == "karras":
            return sigma_steps(denoiser, self.steps, self.rho)
        grid = log_snr_grid(self.steps, denoiser.sigma_min, denoiser.sigma_max)
        return [*denoiser.round_sigma(grid).tolist(), 0.0]

    def _advance(
        self, x: Tensor, past: list["_Known"], then: float, ahead: Tensor | None
    ) -> Tensor:
        """Steps from the last of `past` to `then`; corrects the step if `ahead`, D there, is
        given.
        """
        now = past[-1]
        h = math.log(now.sigma / then)
        scale = -h if self.variant == "bh1" else math.expm1(-h)
        known = [*past[:-1], *([_Known(then, ahead)] if ahead is not None else [])]
        ratios = [math.log(now.sigma / k.sigma) / h for k in known]
        # x' = (s' / s) x + (1 - e^{-h}) D - B sum_k rho_k D_k
        state = then / now.sigma * x - math.expm1(-h) * now.clean
        for rho, ratio, k in zip(_weights(ratios, h, scale), ratios, known, strict=True):
            state = state - scale * rho / ratio * (k.clean - now.clean)
        return state


class _Known(NamedTuple):
    """One evaluation: D at a noise level."""

    sigma: float
    clean: Tensor


def _weights(ratios: list[float], h: float, scale: float) -> list[float]:
    """Solves for rho at the distances `ratios`; for a single one the paper fixes 1/2."""
    if len(ratios) < 2:
        return [0.5] * len(ratios)
    right_side, part, factorial = [], math.expm1(-h) / -h - 1, 1
    for i in range(1, len(ratios) + 1):
        right_side.append(part * factorial / scale)
        factorial *= i + 1
        part = part / -h - 1 / factorial
    rows = [[r**i for r in ratios] for i in range(len(ratios))]
    weights: list[float] = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(right_side, dtype=torch.float64)
    ).tolist()
    return weights
