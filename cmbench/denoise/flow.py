r"""Flow models in sigma-space: velocities on straight lines from data to noise.

The state is x_t = (1 - t) x0 + t n, t from 0 (data) to 1 (noise), its velocity v = n - x0
(rectified flow, https://arxiv.org/abs/2209.03003; the optimal-transport path of flow matching,
https://arxiv.org/abs/2210.02747). Divided by 1 - t it is the state of sigma-space:

    sigma = t / (1 - t),   x = x_t / (1 - t) = x0 + sigma n,   D(x; sigma) = x_t - t v(x_t, t),

so that every sampler runs on it, and a step of Euler's method in t is one in sigma. At t = 1 sigma
is infinite; only the family's own samplers start there (`cmbench/samplers/flow_*.py`).
"""

import math

import torch
from torch import Tensor, nn

from cmbench.denoise.base import Denoiser, expand

__all__ = ["FlowDenoiser", "JumpDenoiser"]


class FlowDenoiser(Denoiser):
    """A denoiser whose network predicts velocities.

    Args:
        net: Raw network, net(x_t, time_scale * t (B,), labels) -> velocity (B, C, H, W).
        shape: Shape of one image, (C, H, W).
        classes: Number of class labels; 0 for an unconditional network.
        time_scale: Factor from t to the network's time.
        sigma_min: Least noise level.
        sigma_max: Greatest noise level of samplers in sigma-space; 80 is t = 0.988.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        time_scale: float = 1.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(shape, classes=classes, sigma_min=sigma_min, sigma_max=sigma_max)
        self.net, self.time_scale = net, time_scale

    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """v(x_t, t) (B, C, H, W) for the states x (B, C, H, W) at t (B,) in [0, 1]."""
        dtype = next(self.net.parameters(), x).dtype
        time = (t * self.time_scale).to(dtype)
        velocity: Tensor = self.net(x.to(dtype), time, labels)
        return velocity.to(x.dtype)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns D(x; sigma) = x_t - t v(x_t, t) with t = sigma / (1 + sigma)."""
        t = (sigma / (1 + sigma)).expand(len(x))
        state = x * expand(1 - t, x).to(x.dtype)
        return state - expand(t, x).to(x.dtype) * self.velocity(state, t, labels)


class JumpDenoiser(FlowDenoiser):
    """A flow that also has the mean velocity over a step: x_{t - h} = x_t - h u(x_t, t, h).

    Its network is called as net(x_t, time_scale * (t, step) (B, 2), labels). `step` is h, or, if
    steps are powers of two down to `shortest`, log2(h) / log2(shortest).

    Args:
        shortest: Step whose mean velocity is used as the velocity; 0 for the exact velocity.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        time_scale: float = 1.0,
        shortest: float = 0.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(
            net,
            shape,
            classes=classes,
            time_scale=time_scale,
            sigma_min=sigma_min,
            sigma_max=sigma_max,
        )
        self.shortest = shortest

    def mean_velocity(
        self, x: Tensor, t: Tensor, h: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """u(x_t, t, h) (B, C, H, W) at t (B,) for steps of length h (B,), h <= t."""
        dtype = next(self.net.parameters(), x).dtype
        step = h.log2() / math.log2(self.shortest) if self.shortest else h
        time = (torch.stack([t, step], 1) * self.time_scale).to(dtype)
        velocity: Tensor = self.net(x.to(dtype), time, labels)
        return velocity.to(x.dtype)

    def velocity(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the mean velocity over the shortest step, or the exact velocity if that is 0."""
        return self.mean_velocity(x, t, torch.full_like(t, self.shortest), labels)
