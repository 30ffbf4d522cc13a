"""Muon for convolutions: momentum whose matrices are made orthogonal; Adam for all the rest.

An update of Adam's is dominated by a few directions of a weight matrix; orthogonalised, it moves
all of them alike. Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; scaled to
the root mean square of Adam's updates, so that one rate serves both, as in Liu et al. 2025,
https://arxiv.org/abs/2502.16982, section 2.2. torch.optim.Muon takes flat matrices alone and
iterates in bfloat16, which CPUs do slowly.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "hidden_convolutions", "orthogonal"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.AdamW):
    """Muon on hidden convolutions, Adam (decay decoupled) on every other parameter.

    Args:
        parameters: All parameters of a network, in the order of its layers.
        lr: Rate of both.
        betas: Adam's.
        eps: Adam's.
        weight_decay: Of both: weights shrink by lr * weight_decay a step.
        momentum: Of the matrices, Nesterov's.
        foreach: Adam's; see torch.optim.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        foreach: bool | None = None,
    ) -> None:
        every = list(parameters)
        super().__init__(
            every, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=foreach
        )
        self.momentum = momentum
        self.matrices = hidden_convolutions(every)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update from the gradients, which the matrices then no longer have."""
        group = self.param_groups[0]
        for matrix in self.matrices:
            if matrix.grad is not None:
                self._turn(matrix, matrix.grad, group["lr"], group["weight_decay"])
                matrix.grad = None  # so that Adam passes it over
        super().step()

    def _turn(self, matrix: nn.Parameter, gradient: Tensor, lr: float, decay: float) -> None:
        state = self.state[matrix]
        if not state:
            state["step"] = torch.zeros(())  # Adam's loading asks each state for it
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - self.momentum)
        rows = gradient.lerp(average, self.momentum).flatten(1)
        turned = orthogonal(rows).reshape(matrix.shape)
        matrix.mul_(1 - lr * decay).add_(turned, alpha=-0.2 * lr * max(rows.shape) ** 0.5)


def hidden_convolutions(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The convolutions' weights but the first and the last, which face the pixels."""
    return [p for p in parameters if p.ndim == 4][1:-1]


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """About U V' of a matrix U S V', (m, n), by Newton and Schulz's iteration.

    Its singular values come within 0.3 of 1, not nearer: the quintic's coefficients are chosen
    to raise the small ones fastest (Jordan et al.). A zero matrix stays zero.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
