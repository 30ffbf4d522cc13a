"""The contract of every Gaussian model: a denoiser in sigma-space, D(x, sigma, labels) -> x0."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["Denoiser", "expand"]


class Denoiser(nn.Module, ABC):
    r"""The estimate of the clean image, D(x; sigma) = E[x0 | x], where x = x0 + sigma * noise.

    Gaussian diffusion models of every family are converted to this form: VE units, images in
    [-1, 1] (EDM, https://arxiv.org/abs/2206.00364, eq. 2-3). A consistency function f(x, sigma)
    has the same signature, with f(x, sigma_min) = x.

    Args:
        shape: Shape of one image, (C, H, W).
        classes: Number of class labels; 0 for an unconditional model.
        sigma_min: Least noise level at which the network may be evaluated.
        sigma_max: Greatest noise level, where sampling starts.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__()
        self.shape, self.classes = tuple(shape), classes
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Denoises x (B, C, H, W) at sigma (B,), labels (B,) int64 or None; returns x's shape."""

    def networks(self) -> list[nn.Module]:
        """Returns the modules whose calls count as network evaluations; by default `self.net`."""
        net = getattr(self, "net", None)
        return [net] if isinstance(net, nn.Module) else [self]

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Returns the nearest noise level of the network; the identity for a continuous model."""
        return sigma


def expand(sigma: Tensor, x: Tensor) -> Tensor:
    """Reshapes sigma (B,) to (B, 1, 1, 1), so that it multiplies x (B, C, H, W)."""
    return sigma.reshape(-1, *[1] * (x.ndim - 1))
