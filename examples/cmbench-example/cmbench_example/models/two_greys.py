"""Two greys: the ideal denoiser of data that is one of two grey images, in closed form."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cmbench.api import Denoiser, Model, expand

__all__ = ["TwoGreys"]


class TwoGreys(Model):
    """D(x, sigma) = grey * tanh(grey * sum(x) / sigma^2): the mean of the two, by Bayes."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "log_euler"}

    grey: float = 0.5

    def build(self) -> nn.Module:
        """The denoiser; it has no weights."""
        return _TwoGreys(self.grey)


class _TwoGreys(Denoiser):
    def __init__(self, grey: float) -> None:
        super().__init__((1, 8, 8))
        self.net = _Posterior(grey)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(x, sigma)


class _Posterior(nn.Module):
    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        evidence = self.grey * x.flatten(1).sum(1) / sigma**2
        return expand(self.grey * torch.tanh(evidence), x).expand_as(x)
