r"""Networks of earlier families in EDM's form: VP, VE, iDDPM, and OpenAI's scaled time.

EDM (https://arxiv.org/abs/2206.00364), Table 1. Each denoiser stores the network as `net` and
states the range of noise levels of its training (`trained_range`) and that of EDM's sampler,
0.002 to 80 within the trained range.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.discrete_levels import iddpm_levels
from cmbench.denoise.precondition import ConsistencyFunction, EDMDenoiser

__all__ = [
    "DiscreteVPDenoiser",
    "IDDPMDenoiser",
    "OpenAIConsistency",
    "OpenAIDenoiser",
    "VEDenoiser",
    "VPDenoiser",
]


class _Scaled(Denoiser):
    """D = x + c_out F(c_in x, c_noise), with the scalings of the subclass."""

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int,
        trained_range: tuple[float, float],
        sigma_min: float | None,
        sigma_max: float | None,
    ) -> None:
        low, high = trained_range
        super().__init__(
            shape,
            classes=classes,
            sigma_min=max(low, 0.002) if sigma_min is None else sigma_min,
            sigma_max=min(high, 80.0) if sigma_max is None else sigma_max,
        )
        self.net, self.trained_range = net, trained_range

    def c_noise(self, sigma: Tensor) -> Tensor:
        """Returns the network's time at sigma (B,), float64."""
        raise NotImplementedError

    def c_out(self, sigma: Tensor) -> Tensor:
        """Factor of the network's output at sigma (B,): -sigma for a prediction of the noise."""
        return -sigma

    def c_in(self, sigma: Tensor) -> Tensor:
        """Factor of the network's input at sigma (B,): the VP state's scale."""
        return (sigma**2 + 1).rsqrt()

    def raw(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Returns F(c_in x, c_noise) with all channels of the network, in the network's type."""
        wide = sigma.to(torch.float64).expand(len(x))
        dtype = next(self.net.parameters()).dtype
        inner = (expand(self.c_in(wide).to(x.dtype), x) * x).to(dtype)
        output: Tensor = self.net(inner, self.c_noise(wide).to(dtype), labels)
        return output

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns D(x; sigma); channels beyond the image's (a learned variance) are ignored."""
        wide = sigma.to(torch.float64).expand(len(x))
        raw = self.raw(x, sigma, labels)[:, : x.shape[1]].to(x.dtype)
        return x + expand(self.c_out(wide).to(x.dtype), x) * raw


class VPDenoiser(_Scaled):
    r"""Continuous VP: c_noise = (steps - 1) t(s), s(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1.

    Args:
        net: Raw network that predicts the noise.
        shape: Shape of one image, (C, H, W).
        classes: Number of class labels.
        beta_d: Increase of beta over t in [0, 1].
        beta_min: beta at t = 0.
        steps: Number of steps of the discrete process, the unit of the network's time.
        least_t: Least t in training.
        sigma_min: Least noise level of sampling; by default the trained one, at least 0.002.
        sigma_max: Greatest noise level of sampling; by default the trained one, at most 80.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        steps: int = 1000,
        least_t: float = 1e-5,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        def level(t: float) -> float:
            return math.sqrt(math.expm1(beta_d * t * t / 2 + beta_min * t))

        ends = (level(least_t), level(1.0))
        super().__init__(
            net,
            shape,
            classes=classes,
            trained_range=ends,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
        )
        self.beta_d, self.beta_min, self.steps = beta_d, beta_min, steps

    def c_noise(self, sigma: Tensor) -> Tensor:
        """Returns (steps - 1) t: 999 t with 1000 steps."""
        root = (self.beta_min**2 + 2 * self.beta_d * torch.log1p(sigma**2)).sqrt()
        return (self.steps - 1) * (root - self.beta_min) / self.beta_d


class VEDenoiser(_Scaled):
    r"""Continuous VE: c_out = s, c_in = 1, c_noise = ln(s / 2); trained at 0.02 to 100."""

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        trained_range: tuple[float, float] = (0.02, 100.0),
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(
            net,
            shape,
            classes=classes,
            trained_range=trained_range,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
        )

    def c_noise(self, sigma: Tensor) -> Tensor:
        """Returns ln(s / 2): the levels of [0, 1] data are half those of [-1, 1] data."""
        return (sigma / 2).log()

    def c_out(self, sigma: Tensor) -> Tensor:
        """Returns sigma: the network predicts the score times sigma."""
        return sigma

    def c_in(self, sigma: Tensor) -> Tensor:
        """Returns 1."""
        return torch.ones_like(sigma)


class IDDPMDenoiser(_Scaled):
    r"""iDDPM's cosine levels in EDM's order: c_noise = steps - 1 - j, with u_j nearest to s."""

    levels: Tensor

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        c_1: float = 0.001,
        c_2: float = 0.008,
        steps: int = 1000,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        levels = iddpm_levels(steps, c_1, c_2)
        ends = (float(levels[steps - 1]), float(levels[0]))
        super().__init__(
            net,
            shape,
            classes=classes,
            trained_range=ends,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
        )
        self.register_buffer("levels", levels, persistent=False)

    def index(self, sigma: Tensor) -> Tensor:
        """Index of the level nearest to each sigma, int64, of sigma's shape."""
        levels = self.levels.to(sigma.device, torch.float64)
        flat = sigma.to(torch.float64).reshape(-1, 1)
        return (flat - levels).abs().argmin(dim=1).reshape(sigma.shape)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Returns the nearest level, in sigma's type."""
        return self.levels.to(sigma.device)[self.index(sigma)].to(sigma.dtype)

    def c_noise(self, sigma: Tensor) -> Tensor:
        """Returns steps - 1 - j for the index j of the nearest level."""
        return (len(self.levels) - 2 - self.index(sigma)).to(torch.float64)


class DiscreteVPDenoiser(_Scaled):
    r"""A discrete VP process: D = x - s eps(x / sqrt(1 + s^2), t(s)).

    Between the process's levels, t is interpolated in ln s.

    Args:
        net: Raw network; its first C channels are the noise (or x0), C more a learned variance.
        shape: Shape of one image, (C, H, W).
        abar: Cumulative products of 1 - beta, (T,), float64.
        classes: Number of class labels.
        time_scale: Factor from the step to the network's time (1000 / T if it is rescaled).
        predicts_x0: Whether the network predicts x0 instead of the noise.
        sigma_min: Least noise level of sampling; by default the process's.
        sigma_max: Greatest noise level of sampling; by default the process's, at most 80.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        abar: Tensor,
        *,
        classes: int = 0,
        time_scale: float = 1.0,
        predicts_x0: bool = False,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        levels = ((1 - abar) / abar).sqrt()
        ends = (float(levels[0]), float(levels[-1]))
        super().__init__(
            net,
            shape,
            classes=classes,
            trained_range=ends,
            sigma_min=ends[0] if sigma_min is None else sigma_min,
            sigma_max=sigma_max,
        )
        # Plain float64 tensors, not buffers: a cast of the module would round the first levels.
        self._abar, self._levels = abar.double(), levels.double()
        self.time_scale, self.predicts_x0 = time_scale, predicts_x0

    @property
    def abar(self) -> Tensor:
        """Cumulative products of 1 - beta, (T,), float64, on the CPU."""
        return self._abar

    @property
    def levels(self) -> Tensor:
        """The process's noise levels, ascending, (T,), float64, on the CPU."""
        return self._levels

    def c_noise(self, sigma: Tensor) -> Tensor:
        """Returns the process's t times the time scale."""
        known = self._levels.log().numpy()
        log = sigma.detach().double().log().cpu().numpy()
        t = np.interp(log, known, np.arange(len(known), dtype=np.float64))
        near = np.rint(t)
        exact = np.where(np.abs(t - near) < 1e-6, near, t)
        return torch.from_numpy(exact * self.time_scale).to(sigma.device)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns D(x; sigma)."""
        return self.split(x, sigma, labels)[0]

    def split(
        self, x: Tensor, sigma: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns D(x; sigma) and the raw variance channels in [-1, 1], None if not learned."""
        raw = self.raw(x, sigma, labels).to(x.dtype)
        channels = x.shape[1]
        learned = raw[:, channels:] if raw.shape[1] > channels else None
        first = raw[:, :channels]
        if self.predicts_x0:
            return first, learned
        return x - expand(sigma.to(x.dtype).expand(len(x)), x) * first, learned


class OpenAIDenoiser(EDMDenoiser):
    """EDM's scalings with network time 250 ln(sigma): the teachers of consistency_models."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns D(x; sigma).

        Raises:
            UserError: If the network is conditional and no labels are given.
        """
        return _at_openai_time(self, x, sigma, labels)


class OpenAIConsistency(ConsistencyFunction):
    """The consistency function with network time 250 ln(sigma)."""

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns f(x, sigma).

        Raises:
            UserError: If the network is conditional and no labels are given.
        """
        return _at_openai_time(self, x, sigma, labels)


def _at_openai_time(
    denoiser: EDMDenoiser, x: Tensor, sigma: Tensor, labels: Tensor | None
) -> Tensor:
    if denoiser.classes and labels is None:
        raise UserError(
            f"the network is conditional on {denoiser.classes} classes", expected="labels (B,)"
        )
    wide = sigma.to(torch.float64).expand(len(x))
    c_skip, c_out = (expand(c.to(x.dtype), x) for c in denoiser.scalings(wide))
    c_in = expand((wide**2 + denoiser.sigma_data**2).rsqrt().to(x.dtype), x)
    dtype = next(denoiser.net.parameters()).dtype
    # The logarithm is in float32, as in the authors' code: at sigma = 80 its rounding moves the
    # time embedding by about 1e-4 radian.
    time = 1000 * 0.25 * torch.log(wide.float() + 1e-44)
    raw = denoiser.net((c_in * x).to(dtype), time.to(dtype), labels)
    return c_skip * x + c_out * raw.to(x.dtype)
