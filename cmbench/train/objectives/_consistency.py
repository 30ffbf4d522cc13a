"""Shared loss of consistency distillation and training: a pair of points, target and distance.

Consistency Models (https://arxiv.org/abs/2303.01469), Algorithms 2 and 3.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.denoise.precondition import ConsistencyFunction
from cmbench.train.objectives.base import Loss, Setup

__all__ = ["PairLoss", "adaptive_points", "adaptive_rate", "update_average"]


def adaptive_points(step: int, total: int, s0: int, s1: int) -> int:
    """N(k), the number of grid points at step k of K: from s0 to s1 + 1 (appendix C)."""
    inner = step / total * ((s1 + 1) ** 2 - s0**2) + s0**2
    return max(math.ceil(math.sqrt(inner) - 1), 1) + 1


def adaptive_rate(points: int, s0: int, mu0: float) -> float:
    """mu(k) = exp(s0 ln(mu0) / n(k)) with n(k) = N(k) - 1, as in the authors' code."""
    return math.exp(s0 * math.log(mu0) / (points - 1))


@torch.no_grad()
def update_average(average: nn.Module, online: nn.Module, rate: float) -> None:
    """Updates average <- rate * average + (1 - rate) * online; buffers are copied."""
    old: list[Tensor] = list(average.parameters())
    new: list[Tensor] = list(online.parameters())
    torch._foreach_lerp_(old, new, 1 - rate)
    for target, source in zip(average.buffers(), online.buffers(), strict=True):
        target.copy_(source)


class PairLoss(Loss):
    """d(f(x_t, t), stopgrad f_target(x_u, u)) for a pair of points t > u of one trajectory.

    The target network is an EMA of the online one at rate mu; at mu = 0 it is the online network
    itself under stop-gradient, without a copy. It is not the EMA for evaluation.
    """

    def __init__(self, setup: Setup, *, keeps_target: bool) -> None:
        super().__init__()
        if not isinstance(setup.student, ConsistencyFunction):
            raise UserError(
                f"a consistency objective can't train a {type(setup.student).__name__}",
                expected="a model whose build() returns a ConsistencyFunction",
            )
        if setup.distance is None:
            raise UserError("a consistency objective needs a distance", fix="distance: l2")
        self.student, self.distance = setup.student, setup.distance
        self.target: nn.Module | None = None
        if keeps_target:
            self.target = copy.deepcopy(setup.student).requires_grad_(False)

    def pair_loss(
        self, x_t: Tensor, t: Tensor, x_u: Tensor, u: Tensor, labels: Tensor | None
    ) -> Tensor:
        """Computes the distance of the pair per image, (B,); both passes share their dropout."""
        with _same_dropout():
            online = self.student(x_t, t, labels)
        target = self.target if self.target is not None else self.student
        target.train(self.student.training)
        with torch.no_grad():
            aim = target(x_u, u, labels)
        loss: Tensor = self.distance(online, aim)
        return loss


@contextmanager
def _same_dropout() -> Iterator[None]:
    """Restores torch's RNG, so that the next pass draws the same dropout masks."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    yield
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)
