"""Noise that depends on (seed, image index, draw index) alone.

Not on the batch, the shard, the device, the worker or what ran before: image 17 starts from the
same noise in a batch of 1 and of 1,000, on a CPU and on a GPU, under every model. So differences
between models and step counts are paired. Philox is counter-based: (seed, index, draw) is a key,
no state is carried. Draws are made on the CPU and moved.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

__all__ = ["LABEL_DRAW", "Noise", "ReplayNoise"]

LABEL_DRAW = -1
"""The draw index kept for class labels, so that labels never shift the noise."""


class Noise:
    """The random draws of a batch of images.

    Args:
        seed: Seed of the whole run (0 to 2^63 - 1).
        indices: Index of each image of the batch in the run, length B.
        shape: Shape of one image, (C, H, W).
        device: Where the draws are moved.
        dtype: Type of the draws; made in float32 and cast.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        shape: tuple[int, ...],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seed, self.indices, self.shape = seed, list(indices), tuple(shape)
        self.device, self.dtype = torch.device(device), dtype

    def __len__(self) -> int:
        return len(self.indices)

    def normal(self, draw: int) -> Tensor:
        """Standard normal draws (B, C, H, W) number `draw`; 0 is the initial noise."""
        drawn = np.empty((len(self.indices), *self.shape), np.float32)
        for row, index in zip(drawn, self.indices, strict=True):
            self._bits(index, draw).standard_normal(out=row, dtype=np.float32)
        return torch.from_numpy(drawn).to(self.device, self.dtype)

    def uniform(self, draw: int) -> Tensor:
        """Uniform draws in [0, 1), (B, C, H, W), number `draw`."""
        drawn = np.empty((len(self.indices), *self.shape), np.float32)
        for row, index in zip(drawn, self.indices, strict=True):
            self._bits(index, draw).random(out=row, dtype=np.float32)
        return torch.from_numpy(drawn).to(self.device, self.dtype)

    def labels(self, classes: int) -> Tensor:
        """A uniform class label per image, (B,) int64 in [0, classes)."""
        drawn = [int(self._bits(i, LABEL_DRAW).integers(classes)) for i in self.indices]
        return torch.tensor(drawn, device=self.device)

    def _bits(self, index: int, draw: int) -> np.random.Generator:
        # Philox takes a 128-bit key and a 256-bit counter: the draw starts its own counter range.
        key = np.array([self.seed, index], dtype=np.uint64)
        counter = np.array([0, 0, 0, draw + 1], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


class ReplayNoise(Noise):
    """Hands out recorded draws: `draws[i]` is draw number i. For parity tests and paired studies.

    Raises:
        IndexError: When a draw is asked for that was not recorded.
    """

    def __init__(self, draws: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> None:
        first = draws[0]
        super().__init__(0, range(len(first)), tuple(first.shape[1:]), first.device, dtype)
        self.draws = list(draws)

    @override
    def normal(self, draw: int) -> Tensor:
        """The recorded draw number `draw`, cast to this stream's type."""
        return self.draws[draw].to(self.device, self.dtype)
