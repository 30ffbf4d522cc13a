"""The binary heartbeat: 20 bits with a one at every fifth, five phases, all alike in probability.

Sohl-Dickstein et al. 2015 (https://arxiv.org/abs/1503.03585), section 3.1.2. The entropy is
log2 5 = 2.322 bits a sequence. Images of shape (1, 1, 20), pixels 0 or 255.
"""

from pathlib import Path

import numpy as np
from pydantic import Field

from cmbench.core.errors import UserError
from cmbench.datasets._arrays import ArrayImages
from cmbench.datasets.base import Dataset

__all__ = ["Heartbeat"]


class Heartbeat(Dataset):
    """The sequences with a one at every `period`-th of `length` bits: `period` of them."""

    length: int = Field(default=20, ge=2, le=4096)
    period: int = Field(default=5, ge=2, le=4096)

    def stated_shape(self) -> tuple[int, int, int]:
        """Returns the shape of one row of `length` bits."""
        return (1, 1, self.length)

    def open(self, path: Path | None = None) -> ArrayImages:
        """Returns the sequences, one per phase.

        Raises:
            UserError: If a path is given: the data is generated.
        """
        if path is not None:
            raise UserError(f"data set {self.name} is embedded and takes no path ({path})")
        places, phases = np.arange(self.length), np.arange(self.period)[:, None]
        bits = (places - phases) % self.period == 0
        pixels = (bits * 255).astype(np.uint8)[:, None, None]
        return ArrayImages(pixels, None, classes=0)
