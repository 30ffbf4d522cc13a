"""Muon for convolutions: orthogonalised momentum; Adam for all other parameters.

A few directions of a weight matrix dominate Adam's update; an orthogonalised update moves all
directions equally. Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Updates
are scaled to the root mean square of Adam's, so that one learning rate serves both (Liu et al.
2025, https://arxiv.org/abs/2502.16982, section 2.2). torch.optim.Muon accepts only flat matrices
and iterates in bfloat16, which is slow on CPUs.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "hidden_convolutions", "orthogonal"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.AdamW):
    """Muon on hidden convolutions, AdamW on every other parameter.

    Args:
        parameters: All parameters of a network, in the order of its layers.
        lr: Learning rate of both.
        betas: Adam's betas.
        eps: Adam's epsilon.
        weight_decay: Decoupled weight decay of both: weights shrink by lr * weight_decay per step.
        momentum: Muon's Nesterov momentum.
        foreach: Adam's `foreach`, see torch.optim.
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
        network_parameters = list(parameters)
        super().__init__(
            network_parameters,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            foreach=foreach,
        )
        self.momentum = momentum
        self.matrices = hidden_convolutions(network_parameters)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates all parameters; clears the gradients of Muon's matrices."""
        group = self.param_groups[0]
        for matrix in self.matrices:
            if matrix.grad is not None:
                self._update(matrix, matrix.grad, group["lr"], group["weight_decay"])
                matrix.grad = None  # so that Adam skips it
        super().step()

    def _update(self, matrix: nn.Parameter, gradient: Tensor, lr: float, decay: float) -> None:
        state = self.state[matrix]
        if not state:
            state["step"] = torch.zeros(())  # Adam expects it when a state is loaded
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - self.momentum)
        rows = gradient.lerp(average, self.momentum).flatten(1)
        update = orthogonal(rows).reshape(matrix.shape)
        # 0.2 sqrt(max(m, n)): the root mean square of Adam's updates (Liu et al., section 2.2).
        matrix.mul_(1 - lr * decay).add_(update, alpha=-0.2 * lr * max(rows.shape) ** 0.5)


def hidden_convolutions(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Returns the weights of convolutions except the first and the last, next to the pixels."""
    return [p for p in parameters if p.ndim == 4][1:-1]


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Approximates U V' of a matrix U S V', (m, n), by a Newton-Schulz iteration.

    The singular values of the result are within 0.3 of 1 but do not converge: the quintic's
    coefficients raise small ones fastest (Jordan et al.). A zero matrix stays zero.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
