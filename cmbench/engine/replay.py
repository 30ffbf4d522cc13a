"""Records network outputs and replays them in place of identical calls.

A sampler whose first calls are replayed takes the same path as before: the inputs of later calls
are bit-identical, and the counted evaluations are those of a run without replay. A call is
replayed only if its input equals the recorded one, by a checksum per image.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cmbench.core.errors import CmbenchError
from cmbench.core.files import write_json

__all__ = ["Calls", "NotKeptError", "OtherCallError", "Recorder", "read_calls", "replaying"]


class NotKeptError(CmbenchError):
    """Says that a network's outputs can't be recorded: they are not one row per image."""


class OtherCallError(CmbenchError):
    """Says that a sampler's first calls differ from those of the samplers in its `prefixes`."""


class Calls:
    """Recorded first calls of a network for the images of a shard, by index of the call."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files: list[tuple[Any, str, bool]] = []
        for folder in folders:
            entries = json.loads((folder / "calls.json").read_text("utf-8"))
            # The mapped file lives as long as its handle.
            opened: Any = safe_open(folder / "calls.safetensors", "pt")
            for name, call in enumerate(entries):
                self._files.append((opened, str(name), call["channels_last"]))

    def __len__(self) -> int:
        return len(self._files)

    def rows(self, call: int, first: int, size: int, device: torch.device) -> Tensor:
        """Returns the output of one call for images first to first + size of the shard."""
        opened, name, last = self._files[call]
        output: Tensor = opened.get_slice(name)[first : first + size].to(device)
        return output.contiguous(memory_format=torch.channels_last) if last else output

    def check(self, call: int, first: int, inputs: Tensor) -> None:
        """Compares one call's input (B, C, H, W) with the recorded one for these images.

        Raises:
            OtherCallError: If they differ.
        """
        opened, name, _ = self._files[call]
        if f"{name}.inputs" not in set(opened.keys()):
            return
        known: Tensor = opened.get_slice(f"{name}.inputs")[first : first + len(inputs)]
        if not torch.equal(known, _checksums(inputs)):
            raise OtherCallError(
                f"the sampler's network call {call + 1} is not that of the sampler that its "
                "`prefixes` names: remove `prefixes`"
            )


class Recorder:
    """Collects outputs that are not recorded yet, with checksums of their inputs, by batch."""

    def __init__(self) -> None:
        self._batches: list[list[tuple[Tensor, Tensor]]] = []

    def add(self, calls: list[tuple[Tensor, Tensor]]) -> None:
        """Adds the next batch: output and checksums of the input of each call."""
        self._batches.append([(out.cpu(), sums) for out, sums in calls])

    def save(self, folder: Path) -> None:
        """Writes calls.safetensors and calls.json into `folder`."""
        calls = list(zip(*self._batches, strict=True))
        entries = [{"channels_last": _is_channels_last(parts[0][0])} for parts in calls]
        tensors = {}
        for i, parts in enumerate(calls):
            tensors[str(i)] = torch.cat([out for out, _ in parts]).contiguous()
            tensors[f"{i}.inputs"] = torch.cat([sums for _, sums in parts])
        save_file(tensors, folder / "calls.safetensors")
        write_json(folder / "calls.json", entries)


def read_calls(folders: Sequence[Path]) -> Calls:
    """Reads the calls of a chain of prefixes, up to the first that could not be recorded."""
    available = []
    for folder in folders:
        if not (folder / "calls.json").is_file():
            break
        available.append(folder)
    return Calls(available)


@contextmanager
def replaying(
    networks: Sequence[nn.Module],
    calls: Calls,
    first: int,
    size: int,
    kept: list[tuple[Tensor, Tensor]] | None,
) -> Iterator[None]:
    """Replays the network's first calls from `calls` and appends later ones to `kept`.

    Raises:
        NotKeptError: If an output to record is not one tensor with one row per image, or if there
            are several networks, whose calls can't be distinguished.
        OtherCallError: If a call's input is not the recorded one.
    """
    if kept is None and not len(calls):
        yield
        return
    if len(networks) != 1:
        raise NotKeptError("a model of several networks is not replayed")
    net = networks[0]
    own, before = net.forward, net.__dict__.get("forward")
    position = 0

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal position
        call, position = position, position + 1
        if call < len(calls):
            inputs = _first_tensor(args, kwargs)
            calls.check(call, first, inputs)
            return calls.rows(call, first, size, inputs.device)
        # The checksum is taken before the call, which may change its input in place.
        sums = _checksums(_first_tensor(args, kwargs)) if kept is not None else torch.empty(0)
        output = own(*args, **kwargs)
        if kept is not None:
            if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != size:
                raise NotKeptError("a network's output is not one row per image")
            # A copy, since the denoiser may change the output in place.
            kept.append((output.clone(), sums))
        return output

    net.forward = forward
    try:
        yield
    finally:
        if before is None:
            del net.forward
        else:
            net.forward = before


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    raise NotKeptError("a network is called without a tensor")


def _checksums(rows: Tensor) -> Tensor:
    """Returns the CRC-32 of each row's bytes, (B,), int64."""
    checksums = [zlib.crc32(row.tobytes()) for row in rows.detach().cpu().contiguous().numpy()]
    return torch.tensor(checksums, dtype=torch.int64)


def _is_channels_last(value: Tensor) -> bool:
    last = value.is_contiguous(memory_format=torch.channels_last)
    return last and not value.is_contiguous()
