r"""Sohl-Dickstein's Gaussian diffusion (2015, https://arxiv.org/abs/1503.03585).

Forward x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) n on data of mean 0 and variance 1; the
network parametrises the reverse kernel N(mu, Sigma):

    mu = sqrt(1 - beta_t) x + sqrt(beta_t) m,   Sigma = sigmoid(v / sqrt(T) + logit beta_t),

so that m = v = 0 is the forward drift (in the form of the released code, which differs from the
paper's). The first step is not learned. As mu is linear in the clean image, the model is also a
Denoiser.
"""

import math

import torch
from torch import Tensor, nn

from cmbench.denoise.base import Denoiser, expand

__all__ = ["ReverseGaussian"]

_NULL = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy in nats of one standard normal value."""


class ReverseGaussian(Denoiser):
    """Reverse kernels at t = 2..T, their bound, and the denoiser that they imply.

    Args:
        net: The raw network F(x, c_noise, labels) -> (B, 2 C, H, W), c_noise = 2 t / T - 1.
        shape: Shape of one image, (C, H, W).
        levels: T, the number of steps of the forward process.
        classes: Number of class labels.
        mean: Mean of the data, images in [-1, 1].
        std: Standard deviation of the data.
        learn_beta: Whether beta_2..T are trained; their initial or fixed value is
            1 / linspace(T, 2, T).
        first_beta: beta_1, which is never trained (a small constant in the paper); None: 1 / T.
    """

    beta_logits: Tensor
    first: Tensor

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        levels: int = 1000,
        classes: int = 0,
        mean: float = 0.0,
        std: float = 1.0,
        learn_beta: bool = False,
        first_beta: float | None = None,
    ) -> None:
        super().__init__(shape, classes=classes)
        self.net, self.levels, self.mean, self.std = net, levels, mean, std
        beta = (1 / torch.linspace(levels, 2, levels)).clamp(1e-6, 1 - 1e-5)
        self.register_buffer(
            "first", beta[:1] if first_beta is None else torch.tensor([first_beta])
        )
        logits = torch.logit(beta[1:])
        if learn_beta:
            self.beta_logits = nn.Parameter(logits)
        else:
            self.register_buffer("beta_logits", logits)
        self.register_load_state_dict_post_hook(_refresh)
        self._set_range()

    def betas(self) -> Tensor:
        """Returns beta_1..T, (T,)."""
        return torch.cat([self.first, self.beta_logits.sigmoid()])

    def signal(self) -> Tensor:
        """Returns abar_0..T, (T + 1,), with abar_0 = 1."""
        abar = (1 - self.betas()).cumprod(0)
        return torch.cat([torch.ones_like(abar[:1]), abar])

    def reverse(
        self, x: Tensor, index: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance (B, C, H, W) of p(x_{t-1} | x_t), x standardised, t (B,) in 2..T."""
        beta = expand(self.betas()[index - 1], x)
        dtype = self.first.dtype
        output = self.net(x.to(dtype), 2 * index.to(dtype) / self.levels - 1, labels)
        drift, spread = output.to(x.dtype).chunk(2, 1)
        mean = (1 - beta).sqrt() * x + beta.sqrt() * drift
        return mean, torch.sigmoid(spread / math.sqrt(self.levels) + torch.logit(beta))

    def posterior(self, x: Tensor, x0: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of q(x_{t-1} | x_t, x_0), t (B,) in 1..T."""
        of_x, of_x0, variance = self._weights(index)
        return expand(of_x, x) * x + expand(of_x0, x) * x0, expand(variance, x)

    def divergence(
        self, x0: Tensor, index: Tensor, noise: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, (B,); x_t uses `noise`."""
        abar = expand(self.signal()[index], x0)
        x = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
        mean, variance = self.posterior(x, x0, index)
        model_mean, model_variance = self.reverse(x, index, labels)
        distance = (variance + (mean - model_mean).square()) / (2 * model_variance)
        return (0.5 * (model_variance / variance).log() + distance - 0.5).flatten(1).sum(1)

    def entropies(self) -> Tensor:
        """H_q(X_T | X_0) - H_q(X_1 | X_0) - H_p(X_T) in nats per value of the data."""
        return 0.5 * torch.log1p(-self.signal()[-1]) - 0.5 * self.betas()[0].log() - _NULL

    def null(self) -> float:
        """L_null: log-likelihood in nats of one standardised value under a standard normal."""
        return -_NULL

    def bound(self, x0: Tensor, noises: Tensor, labels: Tensor | None = None) -> Tensor:
        """The lower bound K on log p(x0), (B,) bits (paper eq. 14), x0 standardised.

        Args:
            x0: Data (B, C, H, W), mean 0 and variance 1.
            noises: One standard normal draw per t = 2..T, (T - 1, B, C, H, W).
            labels: Class labels (B,) or None.
        """
        total = x0[0].numel() * self.entropies().expand(len(x0))
        for index, noise in zip(range(2, self.levels + 1), noises, strict=True):
            at = torch.full((len(x0),), index, device=x0.device)
            total = total - self.divergence(x0, at, noise, labels)
        return total / math.log(2)

    def standardise(self, images: Tensor) -> Tensor:
        """Maps images in [-1, 1] to mean 0 and variance 1."""
        return (images - self.mean) / self.std

    def restore_range(self, x: Tensor) -> Tensor:
        """Maps standardised data to images."""
        return x * self.std + self.mean

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the clean image (mu - a x_t) / b that mu implies at x (B, C, H, W)."""
        level = sigma / self.std
        x_t = self.standardise(x) / expand((1 + level**2).sqrt(), x)
        index = self._nearest(level)
        mean, _ = self.reverse(x_t, index, labels)
        of_x, of_x0, _ = self._weights(index)
        return self.restore_range((mean - expand(of_x, x) * x_t) / expand(of_x0, x))

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Returns the nearest of the levels t = 2..T."""
        return self._levels()[self._nearest(sigma / self.std) - 2].to(sigma) * self.std

    def _weights(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        beta, abar = self.betas()[index - 1], self.signal()
        now, before = abar[index], abar[index - 1]
        of_x = (1 - beta).sqrt() * (1 - before) / (1 - now)
        return of_x, before.sqrt() * beta / (1 - now), beta * (1 - before) / (1 - now)

    def _levels(self) -> Tensor:
        abar = self.signal()[2:]
        return ((1 - abar) / abar).sqrt()

    def _nearest(self, level: Tensor) -> Tensor:
        known, wanted = self._levels().log(), level.clamp(min=1e-12).log().to(self.first.dtype)
        return 2 + (known[None] - wanted[:, None]).abs().argmin(1)

    def _set_range(self) -> None:
        levels = self._levels().detach()
        self.sigma_min = float(levels[0]) * self.std
        self.sigma_max = float(levels[-1]) * self.std


def _refresh(module: nn.Module, keys: object) -> None:
    # Loaded betas change the range of noise levels.
    if isinstance(module, ReverseGaussian):
        module._set_range()
