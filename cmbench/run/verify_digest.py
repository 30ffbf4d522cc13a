"""The digest of a shard's pixels, as records claim it and `cmbench verify` checks it."""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["pixels_digest"]


def pixels_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of shape and bytes of pixels (N, C, H, W)."""
    state = hashlib.sha256(str(pixels.shape).encode())
    state.update(np.ascontiguousarray(pixels).tobytes())
    return state.hexdigest()
