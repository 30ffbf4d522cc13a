r"""Preconditioning of a raw network F to a denoiser, D = c_skip x + c_out F(c_in x, c_noise).

EDM (https://arxiv.org/abs/2206.00364, Table 1), and the consistency function
(https://arxiv.org/abs/2303.01469, eq. 5 and appendix C), whose c_skip and c_out are shifted so
that f(x, sigma_min) = x. Both store the network as `net`, so that a student can start from its
teacher's weights.
"""

import torch
from torch import Tensor, nn

from cmbench.denoise.base import Denoiser, expand

__all__ = ["ConsistencyFunction", "EDMDenoiser"]


class EDMDenoiser(Denoiser):
    r"""EDM's denoiser: c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2),
    c_in = 1 / sqrt(s^2 + sd^2), c_noise = ln(s) / 4, with sd = sigma_data.

    Args:
        net: Raw network, net(x, c_noise (B,), labels) -> (B, C, H, W).
        shape: Shape of one image, (C, H, W).
        classes: Number of class labels; 0 for an unconditional network.
        sigma_data: Assumed standard deviation of the data, a constant: 0.5 for all datasets.
        sigma_min: Least noise level.
        sigma_max: Greatest noise level.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        super().__init__(shape, classes=classes, sigma_min=sigma_min, sigma_max=sigma_max)
        self.net, self.sigma_data = net, sigma_data

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Returns c_skip and c_out at sigma, in sigma's shape."""
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt()

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns D(x; sigma), computed in x's type; the network runs in its own type."""
        wide = sigma.to(torch.float64).expand(len(x))
        c_skip, c_out = (expand(c.to(x.dtype), x) for c in self.scalings(wide))
        c_in = expand((wide**2 + self.sigma_data**2).rsqrt().to(x.dtype), x)
        dtype = next(self.net.parameters(), x).dtype
        c_noise = (wide.log() / 4).to(dtype)
        raw = self.net((c_in * x).to(dtype), c_noise, labels)
        return c_skip * x + c_out * raw.to(x.dtype)


class ConsistencyFunction(EDMDenoiser):
    r"""f(x, s) with c_skip = sd^2 / ((s - eps)^2 + sd^2), c_out = (s - eps) sd / sqrt(s^2 + sd^2),
    with eps = sigma_min, so that f(x, eps) = x exactly.

    The root in c_out contains s, not s - eps (appendix C of the paper).
    """

    def scalings(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Returns c_skip and c_out at sigma; they are 1 and 0 at sigma_min."""
        shifted = sigma - self.sigma_min
        c_skip = self.sigma_data**2 / (shifted**2 + self.sigma_data**2)
        return c_skip, shifted * self.sigma_data / (sigma**2 + self.sigma_data**2).sqrt()
