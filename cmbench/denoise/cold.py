r"""Cold diffusion's network: a restorer R(x_s, s) -> x0 for images degraded to severity s.

Cold Diffusion (Bansal et al. 2022, https://arxiv.org/abs/2208.09392), section 3. The
samplers `cold_algorithm1`, `cold_algorithm2`, `cold_direct` and `cold_estimated` sample it; bound
to one of them it is a Generator. It is not a Denoiser: there is no sigma.
"""

from abc import ABC, abstractmethod
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.core.random import Noise

__all__ = ["Degrades", "NetworkRestorer", "Restorer"]

COMPONENT_DRAW = 2
"""Index of the noise draw that chooses a component of the start's mixture."""


class Degrades(Protocol):
    """A degradation that a restorer inverts: `cmbench.degradations.base.Degradation`."""

    @property
    def levels(self) -> int:
        """The greatest severity."""
        ...

    def degrade(self, x0: Tensor, severity: Tensor, noise: Noise | None = None) -> Tensor:
        """Returns D(x0, severity)."""
        ...

    def start(self, noise: Noise) -> Tensor:
        """Returns fully degraded images that no clean image is needed for."""
        ...


class Restorer(nn.Module, ABC):
    """Estimates the clean image from x_s and s, and draws the start of generation.

    Args:
        shape: Shape of one image, (C, H, W).
        degradation: The degradation that it inverts.
        classes: Number of class labels; 0 for an unconditional model.
        starts: `gmm`: a constant colour from a mixture of Gaussians fitted to the channel means
            of the training images (stored with the weights); `degradation`: the start of the
            degradation itself.
        components: Components of that mixture; 1 in the paper's commands.
    """

    start_weights: Tensor
    start_means: Tensor
    start_factors: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        degradation: Degrades,
        *,
        classes: int = 0,
        starts: Literal["gmm", "degradation"] = "gmm",
        components: int = 1,
    ) -> None:
        super().__init__()
        self.shape, self.classes, self.degradation = tuple(shape), classes, degradation
        self.starts, self.components = starts, components
        channels = shape[0]
        factors = 0.3 * torch.eye(channels).expand(components, -1, -1).clone()
        self.register_buffer("start_weights", torch.full((components,), 1 / components))
        self.register_buffer("start_means", torch.zeros(components, channels))
        self.register_buffer("start_factors", factors)

    @abstractmethod
    def forward(self, x: Tensor, severity: Tensor, labels: Tensor | None = None) -> Tensor:
        """Restores x (B, C, H, W), degraded to severity (B,) in 1..levels; same shape."""

    @property
    def levels(self) -> int:
        """The greatest severity."""
        return self.degradation.levels

    def networks(self) -> list[nn.Module]:
        """Returns the modules whose calls are counted; by default `self.net`."""
        net = getattr(self, "net", None)
        return [net] if isinstance(net, nn.Module) else [self]

    def start(self, noise: Noise) -> Tensor:
        """Draws the start of generation, (B, C, H, W): see `starts`."""
        if self.starts == "degradation":
            return self.degradation.start(noise)
        share = noise.uniform(COMPONENT_DRAW).flatten(1)[:, 0].contiguous()
        component = torch.searchsorted(self.start_weights.cumsum(0), share.to(self.start_weights))
        component = component.clamp(max=self.components - 1)
        z = noise.normal(0)[:, :, 0, 0].to(self.start_means)
        colour = (
            self.start_means[component] + (self.start_factors[component] @ z[:, :, None])[..., 0]
        )
        return colour[:, :, None, None].expand(-1, -1, *noise.shape[1:]).to(noise.dtype)

    @torch.no_grad()
    def set_start(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Sets the mixture: weights (K,), means (K, C), covariances (K, C, C)."""
        eye = 1e-9 * torch.eye(means.shape[1], dtype=covariances.dtype)
        self.start_weights.copy_(weights)
        self.start_means.copy_(means)
        self.start_factors.copy_(torch.linalg.cholesky(covariances + eye))


class NetworkRestorer(Restorer):
    """R(x, s) = net(x, c(s)) or x + net(x, c(s)).

    Args:
        net: The raw network F(x, c_noise, labels).
        shape: Shape of one image, (C, H, W).
        degradation: The degradation that it inverts.
        classes: Number of class labels.
        starts: The start of generation, see `Restorer`.
        components: Components of the start's mixture.
        time: `index`: c = s - 1, as for the released networks; `unit`: c = 2 s / levels - 1.
        residual: Whether the network's output is added to its input.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        degradation: Degrades,
        *,
        classes: int = 0,
        starts: Literal["gmm", "degradation"] = "gmm",
        components: int = 1,
        time: Literal["index", "unit"] = "index",
        residual: bool = False,
    ) -> None:
        super().__init__(shape, degradation, classes=classes, starts=starts, components=components)
        if classes and time == "index":
            raise UserError("the released cold-diffusion networks take no class labels")
        self.net, self.time, self.residual = net, time, residual

    def forward(self, x: Tensor, severity: Tensor, labels: Tensor | None = None) -> Tensor:
        """Restores x (B, C, H, W) from severity (B,)."""
        s = severity.to(x.dtype)
        c = s - 1 if self.time == "index" else 2 * s / self.levels - 1
        restored: Tensor = self.net(x, c, labels)
        return x + restored if self.residual else restored
