"""Content addresses: canonical JSON and SHA-256 of specifications, arrays and files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["canonical", "digest", "file_sha256", "pixels_digest", "text_sha256"]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text.

    Raises:
        ValueError: For NaN or infinity, which JSON can't hold.
        TypeError: For a value that is not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 (hex, 64 characters) of the canonical JSON of `value`."""
    return text_sha256(canonical(value))


def text_sha256(text: str) -> str:
    """SHA-256 (hex) of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path, *, chunk: int = 1 << 20) -> str:
    """SHA-256 (hex) of a file, read in chunks of `chunk` bytes."""
    with path.open("rb") as file:
        return stream_sha256(iter(lambda: file.read(chunk), b""))


def stream_sha256(blocks: Iterable[bytes]) -> str:
    """SHA-256 (hex) of blocks of bytes, one after another."""
    state = hashlib.sha256()
    for block in blocks:
        state.update(block)
    return state.hexdigest()


def pixels_digest(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of shape and bytes of pixels (N, C, H, W)."""
    state = hashlib.sha256(str(pixels.shape).encode())
    state.update(np.ascontiguousarray(pixels).tobytes())
    return state.hexdigest()
