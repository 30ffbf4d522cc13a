"""Respacing of a discrete VP process: the steps that are kept, and the posterior between them.

DDPM (https://arxiv.org/abs/2006.11239, eq. 6-7), iDDPM (https://arxiv.org/abs/2102.09672, section
4 and eq. 15). A shortened process has the full process's abar at the steps it keeps. Its betas
follow from abar, and the network is evaluated at the noise levels, hence the steps, of the full
process.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser

__all__ = ["Posterior", "Process", "discrete", "kept_steps"]

Variance = Literal["learned", "small", "large"]


def kept_steps(total: int, respacing: str) -> list[int]:
    """Returns the steps kept of 0..total - 1, ascending.

    `""` keeps all steps; `"25"` or `"6,3"` gives a count per section; `"ddim25"` keeps every n-th
    step from 0 for an integer n. A section keeps its first and last step and, between them, evenly
    spaced and rounded ones.

    Raises:
        UserError: If the process can't be divided so, or `respacing` can't be parsed.
    """
    if not respacing:
        return list(range(total))
    if respacing.startswith("ddim"):
        count = _number(respacing.removeprefix("ddim"), respacing)
        for stride in range(1, total + 1):
            if len(range(0, total, stride)) == count:
                return list(range(0, total, stride))
        raise UserError(
            f"respacing {respacing!r}: no integer stride keeps {count} of {total} steps"
        )
    counts = [_number(part, respacing) for part in respacing.split(",")]
    kept: list[int] = []
    first = 0
    for i, count in enumerate(counts):
        size = total // len(counts) + (1 if i < total % len(counts) else 0)
        if count > size:
            raise UserError(f"respacing {respacing!r}: a section has {size} steps, not {count}")
        pace = (size - 1) / (count - 1) if count > 1 else 1.0
        # A running sum, as in the authors' code: its rounding error decides steps that fall on .5.
        position = 0.0
        for _ in range(count):
            kept.append(first + round(position))
            position += pace
        first += size
    return kept


def discrete(denoiser: Denoiser) -> DiscreteVPDenoiser:
    """Returns the denoiser if it is one of a discrete process.

    Raises:
        UserError: If it is not: a sampler of iDDPM needs the steps of the process.
    """
    if not isinstance(denoiser, DiscreteVPDenoiser):
        raise UserError(
            f"a sampler of iDDPM can't sample a {type(denoiser).__name__}",
            expected="a model of a discrete VP process, as iddpm/...",
            fix="sampler: {name: ddim, eta: 1}",
        )
    return denoiser


class Posterior(NamedTuple):
    """Mean, log variance of x_{t-1} and the estimate of x0, each (B, C, H, W)."""

    mean: Tensor
    log_variance: Tensor
    clean: Tensor


@dataclass(frozen=True)
class Process:
    """A process of N kept steps; all fields are (N,) float64.

    Args:
        abar: Cumulative products of 1 - beta.
        before: abar of the step before, 1 for the first step.
        betas: 1 - abar / before.
        variance: Posterior variance (DDPM, eq. 7): beta (1 - before) / (1 - abar).
    """

    abar: Tensor
    before: Tensor
    betas: Tensor
    variance: Tensor

    @classmethod
    def of(cls, abar: Tensor) -> "Process":
        """Builds the process whose kept cumulative products are `abar` (N,)."""
        before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
        betas = 1 - abar / before
        return cls(abar, before, betas, betas * (1 - before) / (1 - abar))

    def log_variance(self, kind: Literal["small", "large"]) -> Tensor:
        """Log variances (N,); the first step, of variance 0, takes the second's."""
        first = self.variance[1:2] if len(self.abar) > 1 else self.betas[:1]
        later = self.variance if kind == "small" else self.betas
        return torch.cat([first, later[1:]]).log()

    def mean(self, clean: Tensor, x: Tensor, i: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t = x, x0 = clean) at steps i (B,) (DDPM, eq. 7)."""
        abar, before, betas = (expand(v[i].to(x), x) for v in (self.abar, self.before, self.betas))
        from_clean = betas * before.sqrt() / (1 - abar) * clean
        return from_clean + (1 - before) * (1 - betas).sqrt() / (1 - abar) * x

    def posterior(
        self,
        denoiser: DiscreteVPDenoiser,
        x: Tensor,
        i: Tensor,
        labels: Tensor | None,
        *,
        variance: Variance,
        clip: bool,
    ) -> Posterior:
        """Returns p(x_{t-1} | x_t = x) for the VP state x (B, C, H, W) at steps i (B,).

        Raises:
            UserError: If the variance is to be learned and the network has none.
        """
        clean, learned = self.denoised(denoiser, x, i, labels)
        clean = clean.clamp(-1, 1) if clip else clean
        if variance == "learned":
            spread = self.learned(learned, x, i)
        else:
            spread = expand(self.log_variance(variance)[i].to(x), x).expand_as(x)
        return Posterior(self.mean(clean, x, i), spread, clean)

    def denoised(
        self, denoiser: DiscreteVPDenoiser, x: Tensor, i: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the estimate of x0 and the variance channels for the VP state x at i (B,)."""
        abar = self.abar[i].to(x.device)
        sigma = ((1 - abar) / abar).sqrt()
        return denoiser.split(x / expand(abar.sqrt().to(x), x), sigma, labels)

    def learned(self, learned: Tensor | None, x: Tensor, i: Tensor) -> Tensor:
        """Log variance (B, C, H, W) from the network's channels in [-1, 1] (iDDPM, eq. 15)."""
        if learned is None:
            raise UserError(
                "the network has no learned variance", expected="variance: small or large"
            )
        low = expand(self.log_variance("small")[i].to(x), x)
        high = expand(self.betas.log()[i].to(x), x)
        share = (learned + 1) / 2
        return share * high + (1 - share) * low


def _number(text: str, respacing: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise UserError(
            f"respacing {respacing!r} can't be parsed", expected="'', '25', '10,5' or 'ddim25'"
        )
    return int(text)
