r"""Binomial diffusion of bits (Sohl-Dickstein et al. 2015, https://arxiv.org/abs/1503.03585).

Forward: each bit is kept with probability 1 - beta_t, else redrawn from B(0.5); beta_t =
1 / (T - t + 1), so abar_t = (T - t) / T: each step loses 1/T of the signal. q(x_t = 1 | x_0) =
abar_t x_0 + (1 - abar_t) / 2. Reverse: independent bits whose rates the network predicts; the
first step is not learned (p(x_0 | x_1) is the forward kernel).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from cmbench.denoise.base import expand

__all__ = ["BinomialDiffusion"]


class BinomialDiffusion(nn.Module):
    """Reverse rates at t = 2..T and their bound. Images are bits: -1 or 1, (C, H, W).

    Args:
        net: The raw network F(x, c_noise, labels) -> logits (B, C, H, W), c_noise = 2 t / T - 1.
        shape: Shape of one image, (C, H, W).
        levels: T, the number of steps of the forward process.
        predicts: `rate`: the network's output is added to the forward step's logits of
            p(x_{t-1} | x_t), so that zeros are exact for fair, independent bits; `x0`: it is the
            logits of the clean bits, under which the reverse rate is the posterior's mean, which
            trains better.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        *,
        levels: int = 2000,
        predicts: Literal["rate", "x0"] = "x0",
    ) -> None:
        super().__init__()
        self.net, self.shape, self.classes = net, tuple(shape), 0
        self.levels, self.predicts = levels, predicts

    def networks(self) -> list[nn.Module]:
        """Returns the network."""
        return [self.net]

    def forward(self, x: Tensor, index: Tensor, labels: Tensor | None = None) -> Tensor:
        """Rates p(x_{t-1} = 1 | x_t), (B, C, H, W), for bits x in {-1, 1} at t (B,) in 2..T."""
        logits = self.net(x, 2 * index.to(x.dtype) / self.levels - 1, labels)
        if self.predicts == "rate":
            return torch.sigmoid(logits + _evidence(x, 1 - self._beta(index, x)))
        clean = torch.sigmoid(logits)
        one, zero = torch.ones_like(x), -torch.ones_like(x)
        return clean * self.posterior(x, one, index) + (1 - clean) * self.posterior(x, zero, index)

    def rate(self, x0: Tensor, index: Tensor) -> Tensor:
        """q(x_t = 1 | x_0) for bits x0 in {-1, 1}: (1 + abar_t x0) / 2."""
        return (1 + expand(self._signal(index, x0), x0) * x0) / 2

    def posterior(self, x: Tensor, x0: Tensor, index: Tensor) -> Tensor:
        """q(x_{t-1} = 1 | x_t, x_0), t (B,) in 2..T; bits in {-1, 1}."""
        kept = expand(1 - self._beta(index, x), x)
        before = self.rate(x0, index - 1)
        one, zero = before * (1 + kept * x), (1 - before) * (1 - kept * x)
        return one / (one + zero)

    def divergence(
        self, x0: Tensor, index: Tensor, uniform: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, (B,); `uniform` draws x_t."""
        x = torch.where(uniform < self.rate(x0, index), 1.0, -1.0).to(x0)
        truth, model = self.posterior(x, x0, index), self(x, index, labels).clamp(1e-7, 1 - 1e-7)
        divergence = truth * _log(truth / model) + (1 - truth) * _log((1 - truth) / (1 - model))
        return divergence.flatten(1).sum(1)

    def entropies(self) -> float:
        """H_q(X_T | X_0) - H_q(X_1 | X_0) - H_p(X_T) in nats per bit, for a uniform X_T."""
        flip = 1 / (2 * self.levels)
        return flip * math.log(flip) + (1 - flip) * math.log(1 - flip)

    def bound(self, x0: Tensor, uniforms: Tensor, labels: Tensor | None = None) -> Tensor:
        """The lower bound K on log p(x0), (B,) bits (paper eq. 14).

        Args:
            x0: Bits (B, C, H, W) in {-1, 1}.
            uniforms: One uniform draw per t = 2..T, (T - 1, B, C, H, W).
            labels: None.
        """
        total = torch.full((len(x0),), x0[0].numel() * self.entropies(), dtype=x0.dtype)
        for index, uniform in zip(range(2, self.levels + 1), uniforms, strict=True):
            at = torch.full((len(x0),), index, device=x0.device)
            total = total - self.divergence(x0, at, uniform, labels)
        return total / math.log(2)

    def _beta(self, index: Tensor, like: Tensor) -> Tensor:
        return 1 / (self.levels - index + 1).to(like.dtype)

    def _signal(self, index: Tensor, like: Tensor) -> Tensor:
        return (self.levels - index).to(like.dtype) / self.levels


def _evidence(x: Tensor, kept: Tensor) -> Tensor:
    """Logit of a fair bit observed as x, if it was kept with probability `kept` (B,)."""
    share = expand(kept, x)
    return x * ((1 + share) / (1 - share)).log()


def _log(ratio: Tensor) -> Tensor:
    # 0 log 0 = 0: wherever the clamp acts, the factor before the logarithm is zero.
    return ratio.clamp(min=1e-30).log()
