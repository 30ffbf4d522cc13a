"""Checkpoints of a training: written whole, checksummed, the last two kept."""

import io
from pathlib import Path
from typing import Any

import torch

from cmbench.core.digests import file_sha256
from cmbench.core.files import sweep, write_bytes, write_text

__all__ = ["latest_checkpoint", "save_checkpoint"]

_KEPT = 2


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes `state` atomically with its checksum, and drops all but the last two."""
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
    """The newest checkpoint that is whole; a truncated or corrupt one is passed over.

    What killed trainings left half-written in the folder is removed.
    """
    sweep(folder)
    for path in sorted(folder.glob("checkpoint-*.pt"), reverse=True):
        stated = path.with_suffix(".sha256")
        if stated.is_file() and stated.read_bytes().strip() == file_sha256(path).encode():
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
    return None
