r"""VE, VP and sub-VP processes in continuous time.

Score SDE (https://arxiv.org/abs/2011.13456, section 3.4 and appendix B). A process makes
y = alpha(t) x0 + std(t) z, t in [0, 1]; then y / alpha is the state in sigma-space at
sigma = std / alpha. Functions of t are computed in t's own type.
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
    """dy = f(y, t) dt + g(t) dw, with y given x0 normal of mean alpha x0 and deviation std."""

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
        """The t at which std / alpha is sigma, float64."""

    @abstractmethod
    def drift(self, y: Tensor, t: Tensor) -> Tensor:
        """f(y, t) for y (B, C, H, W), t (B,)."""

    @abstractmethod
    def diffusion(self, t: Tensor) -> Tensor:
        """g(t), of t's shape."""

    @abstractmethod
    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Drift and deviation of one of `steps` steps at t: those of SMLD or DDPM where there is
        one, else Euler's.
        """

    @abstractmethod
    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the ancestral step at t.

        Raises:
            UserError: If the process has none.
        """

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level in sigma-space, in the process's own units."""
        return self.std(t) / self.alpha(t)

    def prior_std(self) -> float:
        """Deviation of the noise that sampling starts from."""
        return 1.0

    def correction(self, t: Tensor, steps: int) -> Tensor:
        """Factor of a Langevin corrector's step: 1 - beta_i of one step, 1 for VE."""
        return torch.ones_like(t)


def _index(t: Tensor, steps: int) -> Tensor:
    """The step at t, cut off."""
    return (t.float() * (steps - 1)).long()


@dataclass(frozen=True)
class VE(SDE):
    r"""sigma(t) = sigma_min (sigma_max / sigma_min)^t; y = x0 + sigma z."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    end: float = 1e-5

    def prior_std(self) -> float:
        """The greatest sigma."""
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def std(self, t: Tensor) -> Tensor:
        """Sigma(t)."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: Tensor) -> Tensor:
        """ln(sigma / sigma_min) / ln(sigma_max / sigma_min)."""
        return (sigma.double() / self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)

    def drift(self, y: Tensor, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(y)

    def diffusion(self, t: Tensor) -> Tensor:
        """Sigma(t) sqrt(2 ln(sigma_max / sigma_min))."""
        return self.std(t) * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """SMLD's: 0 and sqrt(sigma_i^2 - sigma_{i-1}^2), sigma_{-1} = 0."""
        now, then = self._pair(t, steps)
        return torch.zeros_like(y), (now**2 - then**2).sqrt()

    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Appendix F: DDPM's posterior, carried over to SMLD."""
        now, then = self._pair(t, steps)
        gone = now**2 - then**2
        return y + expand(gone, y) * score, (then**2 * gone).sqrt() / now

    def _pair(self, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The level at t among `steps` geometric ones, and the next lower, 0 below the least."""
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
        """exp(-t^2 (beta_max - beta_min) / 4 - t beta_min / 2)."""
        return self._log_alpha(t).exp()

    def std(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2)."""
        return (1 - (2 * self._log_alpha(t)).exp()).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """The root of the quadratic in t."""
        return self._time(torch.log1p(sigma.double() ** 2) / 2)

    def drift(self, y: Tensor, t: Tensor) -> Tensor:
        """-beta y / 2."""
        return -0.5 * expand(self._beta(t), y) * y

    def diffusion(self, t: Tensor) -> Tensor:
        """sqrt(beta)."""
        return self._beta(t).sqrt()

    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """DDPM's: (sqrt(1 - beta_i) - 1) y and sqrt(beta_i), beta_i = beta / steps."""
        beta = self._step(t, steps)
        return expand((1 - beta).sqrt(), y) * y - y, beta.sqrt()

    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """DDPM's with the large variance: (y + beta_i score) / sqrt(1 - beta_i)."""
        beta = self._step(t, steps)
        wide = expand(beta, y)
        return (y + wide * score) / (1 - wide).sqrt(), beta.sqrt()

    def correction(self, t: Tensor, steps: int) -> Tensor:
        """1 - beta_i: of one step, not the product."""
        return 1 - self._step(t, steps)

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def _time(self, decay: Tensor) -> Tensor:
        """The t at which -ln alpha is `decay`."""
        rise = self.beta_max - self.beta_min
        # The form without a difference of near numbers: small t keep their digits.
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
    """VP's drift with less noise: std = 1 - alpha^2."""

    def std(self, t: Tensor) -> Tensor:
        """1 - alpha^2."""
        return 1 - (2 * self._log_alpha(t)).exp()

    def time(self, sigma: Tensor) -> Tensor:
        """By -ln alpha = arsinh(sigma / 2)."""
        return self._time(torch.asinh(sigma.double() / 2))

    def diffusion(self, t: Tensor) -> Tensor:
        """sqrt(beta (1 - alpha^4))."""
        return (self._beta(t) * (1 - (4 * self._log_alpha(t)).exp())).sqrt()

    def discretize(self, y: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Euler's: f / steps and g / sqrt(steps)."""
        return self.drift(y, t) / steps, self.diffusion(t) / math.sqrt(steps)

    def ancestral(self, y: Tensor, score: Tensor, t: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """There is none."""
        raise UserError("sub-VP has no ancestral step", expected="euler_maruyama")
