"""Data-parallel training: gradients are summed over torchrun's ranks.

The global batch is split by rank and every rank draws for the global batch, so the gradient is
that of one process with the same batch, up to the order of additions.
"""

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

__all__ = ["Ranks"]


class Ranks:
    """This process's rank among those that torchrun started; rank 0 of 1 without torchrun."""

    def __init__(self, device: torch.device) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def is_first(self) -> bool:
        """True for the process that writes files and shows progress."""
        return self.rank == 0

    def part(self, batch: int) -> tuple[int, int]:
        """Returns the first and last position (exclusive) of this rank's images in a batch."""
        return batch * self.rank // self.count, batch * (self.rank + 1) // self.count

    def sum_gradients(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> float:
        """Sums the gradients and the loss of all ranks in one message; returns the loss."""
        if self.count == 1:
            return float(loss)
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([loss.reshape(1), *(g.reshape(-1) for g in grads)])
        distributed.all_reduce(flat)
        for grad, part in zip(grads, flat[1:].split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))
        return float(flat[0])

    def wait(self) -> None:
        """Waits for all ranks."""
        if self.count > 1:
            distributed.barrier()
