"""Checkpoints of a training run, written atomically with checksums; the last two are kept."""

import io
from pathlib import Path
from typing import Any

import torch

from cmbench.core.digests import file_sha256
from cmbench.core.files import sweep, write_bytes, write_text

__all__ = ["latest_checkpoint", "save_checkpoint"]

_KEPT = 2


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes `state` atomically with its checksum, and deletes all but the last two."""
    path = folder / f"checkpoint-{step:09d}.pt"
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())
    write_text(path.with_suffix(".sha256"), file_sha256(path))
    for old in sorted(folder.glob("checkpoint-*.pt"))[:-_KEPT]:
        old.with_suffix(".sha256").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Returns the newest intact checkpoint; skips truncated or corrupt ones.

    Partial files of killed runs are deleted from the folder.
    """
    sweep(folder)
    for path in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
        stated = path.with_suffix(".sha256")
        if stated.is_file() and stated.read_bytes().strip() == file_sha256(path).encode():
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
    return None
