r"""Networks of score SDEs in sigma-space, and denoisers as processes in continuous time.

Score SDE (https://arxiv.org/abs/2011.13456, sections 3.4 and 4.3). VE networks predict the score,
VP and sub-VP networks the noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.sde import SDE, VE, VP

__all__ = ["Labels", "SDEDenoiser", "Scores"]


@dataclass(frozen=True)
class Labels:
    """Noise labels: a network's input for the noise level, and the divisor of its output.

    Args:
        continuous: If true, the label is sigma for VE and 999 t for VP. Otherwise it is the index
            of one of `count` steps: for VE from the noisiest down, for VP interpolated in
            ln sigma.
        fourier: Whether the network takes the label's logarithm.
        count: Number of steps of the discrete process (num_scales).
        ladder: Least and greatest divisor of the output if the label is an index
            (`scale_by_sigma`).
        divides: Whether the output is divided by sigma (`scale_by_sigma`).
    """

    continuous: bool = True
    fourier: bool = False
    count: int = 1000
    ladder: tuple[float, float] = (0.01, 50.0)
    divides: bool = False


class SDEDenoiser(Denoiser):
    r"""A network that predicts the score (VE) or the noise (VP, sub-VP) of a process.

    VE: D = y + std^2 score; else D = (y - std out) / alpha.

    Args:
        net: The raw network, net(y in [-1, 1] units, c_noise (B,), labels) -> (B, C, H, W).
        shape: Shape of one image, (C, H, W).
        sde: The process, in its own units.
        labels: Labels of the noise level.
        unit: Our units over the process's: 2 for images in [0, 1], 1 for images in [-1, 1].
        classes: Number of class labels.
        sigma_min: Least noise level of sampling; by default the process's at its `end`.
        sigma_max: Greatest noise level of sampling; by default the process's at t = 1.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        sde: SDE,
        labels: Labels | None = None,
        *,
        unit: float = 1.0,
        classes: int = 0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        ends = torch.tensor([sde.end, 1.0], dtype=torch.float64)
        low, high = (unit * float(s) for s in sde.sigma(ends))
        super().__init__(
            shape, classes=classes, sigma_min=sigma_min or low, sigma_max=sigma_max or high
        )
        self.net, self.sde, self.noise_labels, self.unit = net, sde, labels or Labels(), unit
        self._known = self._levels()

    def label(self, sigma: Tensor) -> Tensor:
        """Returns the noise label at sigma (B,) in the process's units, float64."""
        wide = sigma.double()
        if self.noise_labels.continuous:
            return wide if isinstance(self.sde, VE) else 999 * self.sde.time(wide)
        known = self._known.to(wide.device)
        if isinstance(self.sde, VE):
            return (wide[:, None].log() - known.log()).abs().argmin(1).double()
        upper = torch.searchsorted(known, wide).clamp(1, len(known) - 1)
        low, high = known[upper - 1].log(), known[upper].log()
        share = ((wide.log() - low) / (high - low)).clamp(0, 1)
        return upper - 1 + share

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Returns the nearest level of a discrete VE process; other processes take any level."""
        if self.noise_labels.continuous or not isinstance(self.sde, VE):
            return sigma
        index = self.label(sigma.reshape(-1) / self.unit).long()
        rounded = self._known.to(sigma.device)[index] * self.unit
        return rounded.reshape(sigma.shape).to(sigma.dtype)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns D(x; sigma) in x's type; the network runs in its own type."""
        wide = sigma.double().expand(len(x)) / self.unit
        t = self.sde.time(wide)
        alpha = self.sde.alpha(t)
        inner = self._to_network(expand(alpha.to(x.dtype), x), x)
        label = self.label(wide)
        dtype = next(self.net.parameters(), x).dtype
        c_noise = label.log() if self.noise_labels.fourier else label
        raw: Tensor = self.net(inner.to(dtype), c_noise.to(dtype), labels)
        factor = wide**2 if isinstance(self.sde, VE) else -wide
        factor = self.unit * factor / self._divisor(label)
        return x + expand(factor.to(x.dtype), x) * raw.to(x.dtype)

    def _to_network(self, alpha: Tensor, x: Tensor) -> Tensor:
        """Maps the process's state at x to the network's [-1, 1] if its images are in [0, 1]."""
        return alpha * x if self.unit == 1 else alpha * (x + 1) - 1

    def _divisor(self, label: Tensor) -> Tensor:
        if not self.noise_labels.divides:
            return torch.ones_like(label)
        if self.noise_labels.fourier:
            return label
        low, high = (math.log(s) for s in self.noise_labels.ladder)
        ladder = torch.linspace(high, low, self.noise_labels.count, dtype=torch.float64).exp()
        return ladder.to(label.device)[label.long().clamp(0, self.noise_labels.count - 1)]

    def _levels(self) -> Tensor:
        """Returns the levels of the discrete process in its units, in the order of its labels."""
        count = self.noise_labels.count
        if isinstance(self.sde, VE):
            ends = math.log(self.sde.sigma_max), math.log(self.sde.sigma_min)
            return torch.linspace(*ends, count, dtype=torch.float64).exp()
        if not isinstance(self.sde, VP):
            raise UserError(f"a {type(self.sde).__name__} has no discrete noise labels")
        betas = (self.sde.beta_min / count, self.sde.beta_max / count)
        beta = torch.linspace(*betas, count, dtype=torch.float64)
        abar = torch.cumprod(1 - beta, 0)
        return ((1 - abar) / abar).sqrt()


class Scores:
    """The scores of a denoiser, in the time and units of its process.

    An SDEDenoiser has its own process. Any other denoiser is treated as a VE process over its
    range of noise levels, in our units.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.sde: SDE = VE(denoiser.sigma_min, denoiser.sigma_max)
        self.unit = 1.0
        if isinstance(denoiser, SDEDenoiser):
            self.sde, self.unit = denoiser.sde, denoiser.unit

    def score(self, y: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The score of y (B, C, H, W) at t (B,): (alpha D - y) / std^2, in y's type."""
        alpha, std = (expand(f(t.double()), y) for f in (self.sde.alpha, self.sde.std))
        x = self.to_images(y / alpha)
        clean = self.denoiser(x, self.unit * self.sde.sigma(t.double()), labels)
        return (alpha * self.to_process(clean) - y) / std**2

    def flow(self, y: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The probability-flow ODE's slope dy/dt = f - g^2 score / 2."""
        half = expand(self.sde.diffusion(t) ** 2, y) / 2
        return self.sde.drift(y, t) - half * self.score(y, t, labels)

    def to_images(self, y: Tensor) -> Tensor:
        """Maps the process's units to [-1, 1]."""
        return y if self.unit == 1 else self.unit * y - 1

    def to_process(self, x: Tensor) -> Tensor:
        """Maps [-1, 1] to the process's units."""
        return x if self.unit == 1 else (x + 1) / self.unit
