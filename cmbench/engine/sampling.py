"""Sampling jobs: seeded noise to pixels, batch by batch, with counted evaluations."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cmbench.core.digests import canonical
from cmbench.core.errors import CmbenchError
from cmbench.core.files import write_json
from cmbench.core.loader import create
from cmbench.core.nfe import EvaluationCounter
from cmbench.engine.context import JobContext, Tick
from cmbench.engine.replay import NotKeptError, Recorder, read_calls, replaying
from cmbench.samplers.base import BoundGenerator
from cmbench.store.jobs import Job
from cmbench.store.store import Address

__all__ = ["default_batch", "sample", "sample_prefix"]


def default_batch(shape: tuple[int, ...], device: torch.device) -> int:
    """Returns the default number of images per batch: about 200,000 values on a CPU."""
    values = int(np.prod(shape))
    budget = 200_000 if device.type == "cpu" else 4_000_000
    return max(1, min(500, budget // values))


def sample(job: Job, context: JobContext, folder: Path, tick: Tick) -> None:
    """Writes a shard: its pixels, the counted evaluations, and its speed."""
    generator = _generator(job, context)
    networks = generator.networks()
    count = job.spec["count"]
    with EvaluationCounter(networks) as counter:
        pixels, speed = _sample_shard(job, context, generator, tick, None, counter)
    _require_planned(counter.per_image(count), job)
    np.save(folder / "pixels.npy", pixels.numpy())
    facts = {
        "nfe": counter.per_image(count),
        "parameters": sum(p.numel() for net in networks for p in net.parameters()),
        "flops_per_evaluation": _flops(generator, job.spec, context),
        "shape": list(generator.shape),
    }
    write_json(folder / "facts.json", facts)
    write_json(folder / "speed.json", speed)


def _require_planned(nfe: float, job: Job) -> None:
    """Refuses samples that took another number of evaluations than the suite's `nfe` asked for.

    Raises:
        CmbenchError: With both numbers.
    """
    asked = job.transport.get("nfe")
    if asked is not None and nfe != asked:
        raise CmbenchError(
            f"nfe: {asked} was asked for, {nfe:g} evaluations per image were counted: the model "
            "calls its network more often than its sampler (guidance?); leave `nfe` out or ask "
            "by `steps`, and the counted number stands on the board"
        )


def sample_prefix(job: Job, context: JobContext, folder: Path, tick: Tick) -> None:
    """Records the network outputs that several sampling jobs begin with. If they can't be
    recorded, it writes a note instead, and each job computes them itself.
    """
    write_json(folder / "serves.json", [[a.kind, a.key] for a in job.transport["serves"]])
    recorder = Recorder()
    try:
        _, speed = _sample_shard(job, context, _generator(job, context), tick, recorder)
    except NotKeptError as error:
        write_json(folder / "not_kept.json", {"why": str(error)})
        return
    recorder.save(folder)
    write_json(folder / "speed.json", speed)


def _generator(job: Job, context: JobContext) -> BoundGenerator:
    spec = job.spec
    module = context.module(spec["model"], spec["weights"], job.transport["weights_file"])
    return BoundGenerator(module, create("sampler", spec["sampler"]))  # type: ignore[arg-type]


def _sample_shard(
    job: Job,
    context: JobContext,
    generator: BoundGenerator,
    tick: Tick,
    recorder: Recorder | None,
    counter: EvaluationCounter | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Samples a job's images batch by batch; returns the pixels and their speed."""
    spec, count = job.spec, job.spec["count"]
    batch = job.transport.get("batch") or default_batch(generator.shape, context.device)
    before = [context.store.folder(Address("prefix", k)) for k in job.transport.get("chain", ())]
    calls = read_calls(before)
    seconds: list[float] = []
    pixels: list[Tensor] = []
    done = 0
    while done < count:
        size = min(batch, count - done)
        kept: list[tuple[Tensor, Tensor]] | None = None if recorder is None else []
        images = range(spec["first"] + done, spec["first"] + done + size)
        counted = counter.rows if counter is not None else 0
        with replaying(generator.networks(), calls, done, size, kept):
            block, elapsed = _generate(generator, spec, images, context.device)
        if block is None:
            if counter is not None:
                counter.rows = counted  # evaluations of a batch that did not fit don't count
            batch = max(1, size // 2)
            continue
        if recorder is not None:
            recorder.add(kept or [])
        pixels.append(block)
        seconds.append(elapsed / size)
        done += size
        tick(done, count)
    steady = float(np.median(seconds[1:] or seconds))
    return torch.cat(pixels), _speed(steady + _earlier(before[-1:]), batch, context.device)


def _earlier(last: list[Path]) -> float:
    """Returns the seconds per image already spent on the replayed calls."""
    for folder in last:
        if (folder / "speed.json").is_file():
            speed = json.loads((folder / "speed.json").read_text("utf-8"))
            return float(speed["seconds_per_image"])
    return 0.0


def _generate(
    generator: BoundGenerator, spec: dict[str, Any], indices: range, device: torch.device
) -> tuple[Tensor | None, float]:
    """Returns one batch of pixels and its seconds; None if the device ran out of memory."""
    start = time.perf_counter()
    try:
        pixels = generator.pixels(spec["seed"], indices, device, spec.get("quantisation", "round"))
    except torch.cuda.OutOfMemoryError:
        if len(indices) == 1:
            raise
        torch.cuda.empty_cache()
        return None, 0.0
    return pixels, time.perf_counter() - start


def _flops(generator: BoundGenerator, spec: dict[str, Any], context: JobContext) -> float | None:
    """Counts the floating-point operations of one network evaluation of one image."""
    captured: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.append((module, args, kwargs))
        raise _FirstCallError

    handles = [n.register_forward_pre_hook(keep, with_kwargs=True) for n in generator.networks()]
    try:
        _generate(generator, spec, range(1), context.device)
    except _FirstCallError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not captured:
        return None
    module, args, kwargs = captured[0]
    # Cached by shapes and dtypes: a suite asks for each shard of each cell.
    number = [n is module for n in generator.networks()].index(True)
    form = [str(_form(a)) for a in (*args, *kwargs.values())]
    key = canonical([spec["model"], spec["weights"], number, form])
    return context.flops(key, lambda: _counted(module, args, kwargs))


def _form(value: Any) -> Any:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value


def _counted(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        module(*args, **kwargs)
    rows = next((len(a) for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.ndim), 1)
    return float(flops.get_total_flops()) / rows  # a doubled batch is two evaluations


class _FirstCallError(Exception):
    """Stops a generator at its first network call, after its arguments are captured."""


def _speed(seconds: float, batch: int, device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "seconds_per_image": seconds,
        "batch": batch,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "threads": None if cuda else torch.get_num_threads(),
        "peak_memory_bytes": int(torch.cuda.max_memory_allocated(device)) if cuda else None,
    }
