r"""Ideal denoisers in closed form, against which samplers, objectives and metrics are tested.

For Gaussian data N(mu, s^2 I) at noise sigma: D(x) = mu + s^2 / (s^2 + sigma^2) (x - mu); the
probability-flow ODE scales x - mu from sigma to sigma' by sqrt((s^2 + sigma'^2) /
(s^2 + sigma^2)), so the consistency function is f(x) = mu + (x - mu) sqrt((s^2 + eps^2) /
(s^2 + sigma^2)). For a finite set of points D is their mean under the posterior, a softmax of
-|x - p|^2 / (2 sigma^2) (EDM, https://arxiv.org/abs/2206.00364, appendix B.3).
"""

import torch
from torch import Tensor, nn

from cmbench.denoise.base import Denoiser, expand

__all__ = ["GaussianConsistency", "GaussianDenoiser", "PointsDenoiser"]


class _Formula(nn.Module):
    """A closed form as a network module, so that evaluations are counted."""

    def __init__(self, denoiser: "_Oracle") -> None:
        super().__init__()
        self._owner = [denoiser]

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._owner[0].closed_form(x, sigma)


class _Oracle(Denoiser):
    def __init__(
        self, shape: tuple[int, int, int], *, sigma_min: float = 0.002, sigma_max: float = 80.0
    ) -> None:
        super().__init__(shape, sigma_min=sigma_min, sigma_max=sigma_max)
        self.net = _Formula(self)

    def closed_form(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Evaluates the formula at x (B, C, H, W) and sigma (B,)."""
        raise NotImplementedError

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(x, sigma.expand(len(x)).to(x.dtype))


class GaussianDenoiser(_Oracle):
    """The ideal denoiser of images whose values are independent N(mean, spread^2)."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        mean: float = 0.0,
        spread: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(shape, sigma_min=sigma_min, sigma_max=sigma_max)
        self.mean, self.spread = mean, spread

    def closed_form(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Returns mu + s^2 / (s^2 + sigma^2) (x - mu)."""
        share = self.spread**2 / (self.spread**2 + expand(sigma, x) ** 2)
        return self.mean + share * (x - self.mean)

    def carried(self, x: Tensor, sigma: float, then: float) -> Tensor:
        """The exact solution of the probability-flow ODE from x at sigma to level `then`."""
        s2 = self.spread**2
        return self.mean + (x - self.mean) * ((s2 + then**2) / (s2 + sigma**2)) ** 0.5


class GaussianConsistency(GaussianDenoiser):
    """The exact consistency function of the same data, with f(x, sigma_min) = x."""

    def closed_form(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Returns mu + (x - mu) sqrt((s^2 + eps^2) / (s^2 + sigma^2))."""
        s2 = self.spread**2
        factor = ((s2 + self.sigma_min**2) / (s2 + expand(sigma, x) ** 2)).sqrt()
        return self.mean + factor * (x - self.mean)


class PointsDenoiser(_Oracle):
    """The ideal denoiser of a finite set of equally likely images, which it memorises."""

    points: Tensor

    def __init__(
        self, points: Tensor, *, sigma_min: float = 0.002, sigma_max: float = 80.0
    ) -> None:
        channels, height, width = points.shape[1:]
        super().__init__((channels, height, width), sigma_min=sigma_min, sigma_max=sigma_max)
        self.register_buffer("points", points)

    def closed_form(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Returns the posterior mean of the points."""
        known = self.points.to(x).flatten(1)
        distances = torch.cdist(x.flatten(1), known).square()
        weights = torch.softmax(-distances / (2 * sigma[:, None] ** 2), dim=1)
        return (weights @ known).reshape(x.shape)
