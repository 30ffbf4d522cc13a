r"""A GAN's objective: non-saturating logistic loss with the R1 penalty.

Generator: softplus(-D(G(z))). Discriminator: softplus(D(G(z))) + softplus(-D(x)) +
gamma / 2 |grad D(x)|^2 (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661; Mescheder et al.
2018, https://arxiv.org/abs/1801.04406). The discriminator and its Adam (Kingma & Ba,
https://arxiv.org/abs/1412.6980) are part of the loss, and so of a checkpoint, and step once in
each forward. It supports one process only: the discriminator's gradients are not summed over
ranks.
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.core.bounds import Levels, Widths
from cmbench.core.errors import UserError
from cmbench.denoise.oneshot import OneShot
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["GAN"]


class GAN(Objective):
    """Trains generator and discriminator in turn; `channels` are the latter's, finest first."""

    channels: Widths = Field(default=(64, 128), min_length=1)
    gamma: float = Field(default=1.0, ge=0, description="weight of R1")
    r1_every: Levels = Field(default=8, description="steps between R1 penalties")
    lr: float = Field(default=1e-3, gt=0, description="learning rate of the discriminator")
    betas: tuple[float, float] = (0.0, 0.99)

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student, with a new discriminator.

        Raises:
            UserError: If the student is not a one-shot generator.
        """
        if not isinstance(setup.student, OneShot):
            raise UserError(
                f"objective 'gan' does not train a {type(setup.student).__name__}",
                fix="model: {name: gan, ...}",
            )
        return _Adversarial(self, setup.student)

    def forward_equivalents(self) -> float:
        """Counts generator and discriminator: two fakes, one real image, and at intervals R1."""
        return 9 + 6 / self.r1_every


class _Adversarial(Loss):
    first: Tensor
    second: Tensor
    updates: Tensor
    last: Tensor

    def __init__(self, spec: GAN, student: OneShot) -> None:
        super().__init__()
        self.spec, self.student = spec, student
        self.judge = _Discriminator(student.shape, spec.channels, student.classes)
        size = sum(p.numel() for p in self.judge.parameters())
        self.register_buffer("first", torch.zeros(size))
        self.register_buffer("second", torch.zeros(size))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last", torch.zeros(2))

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        with torch.no_grad():
            old = self.student(draws.normal(self.student.latent), labels)
        self._teach(images, old, labels)
        fakes = self.student(draws.normal(self.student.latent), labels)
        return nnf.softplus(-self.judge(fakes, labels))

    def progress(self, step: int) -> dict[str, float]:
        """Returns the discriminator's loss and its R1 penalty."""
        return {"discriminator": float(self.last[0]), "r1": float(self.last[1])}

    def _teach(self, images: Tensor, fakes: Tensor, labels: Tensor | None) -> None:
        penalised = int(self.updates) % self.spec.r1_every == 0 and self.spec.gamma > 0
        real = images.detach().requires_grad_(penalised)
        scores = self.judge(real, labels)
        logistic = nnf.softplus(-scores).mean() + nnf.softplus(self.judge(fakes, labels)).mean()
        total = logistic
        if penalised:
            (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
            penalty = slope.square().flatten(1).sum(1).mean()
            # Lazy regularisation (https://arxiv.org/abs/1912.04958, appendix B): the penalty is
            # computed every r1_every steps, with r1_every times the weight.
            total = logistic + self.spec.r1_every * self.spec.gamma / 2 * penalty
            self.last[1] = penalty.detach()
        self.last[0] = logistic.detach()
        weights = list(self.judge.parameters())
        grads = torch.autograd.grad(total, weights)
        self._adam(weights, torch.cat([g.flatten() for g in grads]))

    @torch.no_grad()
    def _adam(self, weights: list[nn.Parameter], grad: Tensor) -> None:
        slow, fast = self.spec.betas
        self.updates += 1
        count = int(self.updates)
        self.first.lerp_(grad, 1 - slow)
        self.second.lerp_(grad.square(), 1 - fast)
        scale = (self.second / (1 - fast**count)).sqrt() + 1e-8
        change = self.spec.lr * self.first / (1 - slow**count) / scale
        for weight, part in zip(weights, change.split([w.numel() for w in weights]), strict=True):
            weight.sub_(part.view_as(weight))


class _Discriminator(nn.Module):
    """Strided convolutions, the batch's standard deviation as a last channel, a linear score."""

    def __init__(
        self, shape: tuple[int, int, int], channels: tuple[int, ...], classes: int
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(shape[0], channels[0], 3, padding=1)
        pairs = zip(channels, (*channels[1:], channels[-1]), strict=True)
        self.blocks = nn.ModuleList(_Halving(now, then) for now, then in pairs)
        side = shape[1] // 2 ** len(channels), shape[2] // 2 ** len(channels)
        if min(side) < 1:
            raise UserError(
                f"gan: {len(channels)} discriminator levels are too many for {shape[1]} pixels",
                fix="set objective: {channels: ...} with fewer entries",
            )
        width = (channels[-1] + 1) * math.prod(side)
        self.hidden = nn.Linear(width, channels[-1])
        self.score = nn.Linear(channels[-1], 1)
        self.label = nn.Embedding(classes, channels[-1]) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(images)
        for block in self.blocks:
            h = block(h)
        spread = h.var(0, correction=0).add(1e-8).sqrt().mean().expand(len(h), 1, *h.shape[2:])
        h = nnf.leaky_relu(self.hidden(torch.cat([h, spread], 1).flatten(1)), 0.2)
        score: Tensor = self.score(h)[:, 0]
        if self.label is not None and labels is not None:
            score = score + (self.label(labels) * h).sum(1) / h.shape[1] ** 0.5
        return score


class _Halving(nn.Module):
    def __init__(self, now: int, then: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(now, then, 3, padding=1)
        self.skip = nn.Conv2d(now, then, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(nnf.leaky_relu(x, 0.2)) + self.skip(x)
        return nnf.avg_pool2d(h, 2) / 2**0.5
