"""Network evaluations, counted by forward hooks: never declared, never taken from `steps`."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any

from torch import Tensor, nn

__all__ = ["EvaluationCounter"]


class EvaluationCounter:
    """Counts the rows that pass through `networks` while the context is open.

    A row is one image through one network: guidance by a doubled batch counts twice, Heun's last
    step once. The hook sees `net(...)`, not `net.forward(...)`; a total of zero is therefore a
    fault of the generator, which the contract tests report.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self.networks, self.rows = list(networks), 0
        self._handles: list[Any] = []

    def per_image(self, images: int) -> float:
        """Evaluations per image: an integer for every sampler of fixed length."""
        return self.rows / images

    def __enter__(self) -> "EvaluationCounter":
        for net in self.networks:
            self._handles.append(net.register_forward_pre_hook(self._count, with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _count(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.ndim > 0]
        self.rows += len(tensors[0]) if tensors else 1
