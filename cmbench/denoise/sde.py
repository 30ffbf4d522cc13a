r"""VE, VP and sub-VP processes in continuous time.

Score SDE (https://arxiv.org/abs/2011.13456, section 3.4 and appendix B). The state is
y = alpha(t) x0 + std(t) z, t in [0, 1]; y / alpha is the state in sigma-space at
sigma = std / alpha. Functions of t are computed in t's type.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import expand

__all__ = ["SDE", "VE", "VP", "SubVP"]


class SDE(ABC):
    """dy = f(y, t) dt + g(t) dw, where y given x0 is N(alpha x0, std^2)."""

    end: float
    """Least t of sampling."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Factor of x0, of t's shape."""

    @abstractmethod
    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of the noise, of t's shape."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """Returns the t at which std / alpha is sigma, float64."""

    @abstractmethod
    def drift(self, y: Tensor, t: Tensor) -> Tensor:
        """Returns f(y, t) for y (B, C, H, W), t (B,)."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """Returns g(t), of t's shape."""

    @abstractmethod
    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Drift and deviation of one of `steps` steps at t: SMLD's or DDPM's if the process has
        them, otherwise Euler's.
        """

    @abstractmethod
    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the ancestral step at t.

        Raises:
            UserError: If the process has no ancestral step.
        """

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level in sigma-space, in the process's units."""
        return self.std(t) / self.alpha(t)

    def prior_std(self) -> float:
        """Deviation of the noise that sampling starts from."""
        return 1.0

    def correction(self, t: Tensor, steps: int) -> Tensor:
        """Factor of a Langevin corrector's step: 1 - beta_i of a single step, 1 for VE."""
        return torch.ones_like(t)


def _index(t: Tensor, steps: int) -> Tensor:
    """Index of the step at t, truncated in float32 as in the authors' code."""
    return (t.float() * (steps - 1)).long()


@dataclass(frozen=True)
class VE(SDE):
    r"""sigma(t) = sigma_min (sigma_max / sigma_min)^t; y = x0 + sigma z."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    end: float = 1e-5

    def prior_std(self) -> float:
        """Returns the greatest sigma."""
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        """Returns 1."""
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        """Returns sigma(t)."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: Tensor) -> Tensor:
        """Returns ln(sigma / sigma_min) / ln(sigma_max / sigma_min)."""
        return (sigma.double() / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)

    def drift(self, y: Tensor, t: Tensor) -> Tensor:
        """Returns 0."""
        return torch.zeros_like(y)

    def diffusion(self, t: Tensor) -> Tensor:
        """Returns sigma(t) sqrt(2 ln(sigma_max / sigma_min))."""
        return self.std(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """SMLD's step: drift 0, deviation sqrt(sigma_i^2 - sigma_{i-1}^2) with sigma_{-1} = 0."""
        now, then = self._pair(t, steps)
        return torch.zeros_like(y), (now**2 - then**2).sqrt()

    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The analogue of DDPM's posterior for SMLD (appendix F)."""
        now, then = self._pair(t, steps)
        removed = now**2 - then**2
        return y + expand(removed, y) * score, (then**2 * removed).sqrt() / now

    def _pair(self, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Returns the level at t among `steps` geometric ones and the next lower one, or 0."""
        ends = math.log(self.sigma_max if steps == 1 else self.sigma_min), math.log(self.sigma_max)
        levels = torch.linspace(*ends, steps, dtype=t.dtype, device=t.device).exp()
        levels = torch.cat([torch.zeros_like(levels[:1]), levels])
        index = _index(t, steps)
        return levels[index + 1], levels[index]


@dataclass(frozen=True)
class VP(SDE):
    r"""beta(t) = beta_min + t (beta_max - beta_min); ln alpha = -1/2 int_0^t beta."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    end: float = 1e-3

    def alpha(self, t: Tensor) -> Tensor:
        """Returns exp(-t^2 (beta_max - beta_min) / 4 - t beta_min / 2)."""
        return self._log_alpha(t).exp()

    def std(self, t: Tensor) -> Tensor:
        """Returns sqrt(1 - alpha^2)."""
        return (1 - (2 * self._log_alpha(t)).exp()).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Returns the root of the quadratic in t."""
        return self._time(torch.log1p(sigma.double() ** 2) / 2)

    def drift(self, y: Tensor, t: Tensor) -> Tensor:
        """Returns -beta(t) y / 2."""
        return -0.5 * expand(self._beta(t), y) * y

    def diffusion(self, t: Tensor) -> Tensor:
        """Returns sqrt(beta(t))."""
        return self._beta(t).sqrt()

    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """DDPM's step: drift (sqrt(1 - beta_i) - 1) y, deviation sqrt(beta_i)."""
        beta = self._step(t, steps)
        return expand((1 - beta).sqrt(), y) * y - y, beta.sqrt()

    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """DDPM's step with the large variance: mean (y + beta_i score) / sqrt(1 - beta_i)."""
        beta = self._step(t, steps)
        beta_i = expand(beta, y)
        return (y + beta_i * score) / (1 - beta_i).sqrt(), beta.sqrt()

    def correction(self, t: Tensor, steps: int) -> Tensor:
        """Returns 1 - beta_i, of a single step, not the cumulative product."""
        return 1 - self._step(t, steps)

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def _time(self, decay: Tensor) -> Tensor:
        """Returns the t at which -ln alpha is `decay`."""
        rise = self.beta_max - self.beta_min
        # The form of the root without cancellation: small t keep their digits.
        return 4 * decay / ((self.beta_min**2 + 4 * rise * decay).sqrt() + self.beta_min)

    def _step(self, t: Tensor, steps: int) -> Tensor:
        if steps <= self.beta_max:
            raise UserError(
                f"{steps} steps of this process would each remove more than all of the signal",
                expected=f"more than beta_max = {self.beta_max:g} steps, or euler_maruyama",
            )
        ends = self.beta_min / steps, self.beta_max / steps
        betas = torch.linspace(*ends, steps, dtype=t.dtype, device=t.device)
        return betas[_index(t, steps)]


@dataclass(frozen=True)
class SubVP(VP):
    """VP's drift with less noise: std = 1 - alpha^2 (sub-VP)."""

    def std(self, t: Tensor) -> Tensor:
        """Returns 1 - alpha^2."""
        return 1 - (2 * self._log_alpha(t)).exp()

    def time(self, sigma: Tensor) -> Tensor:
        """Returns the t at which -ln alpha = arsinh(sigma / 2)."""
        return self._time(torch.asinh(sigma.double() / 2))

    def diffusion(self, t: Tensor) -> Tensor:
        """Returns sqrt(beta(t) (1 - alpha^4))."""
        return (self._beta(t) * (1 - (4 * self._log_alpha(t)).exp())).sqrt()

    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Euler's step: drift f / N, deviation g / sqrt(N)."""
        return self.drift(y, t) / steps, self.diffusion(t) / math.sqrt(steps)

    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Raises a UserError: sub-VP has no ancestral step."""
        raise UserError("sub-VP has no ancestral step", expected="euler_maruyama")
