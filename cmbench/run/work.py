"""The work of each kind of job: a pure function of its specification, written into a folder."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cmbench.core.digests import canonical
from cmbench.core.errors import CmbenchError
from cmbench.core.files import write_json
from cmbench.core.images import to_pixels
from cmbench.core.loader import create
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.datasets._base import Dataset
from cmbench.metrics._base import Features, Metric
from cmbench.metrics._reference import (
    load_reference,
    reference_from_features,
    save_reference,
)
from cmbench.record.store import Address
from cmbench.run.replay import NotKeptError, Recorder, read_calls, replaying
from cmbench.run.workbench import Tick, Workbench
from cmbench.samplers._base import BoundGenerator
from cmbench.suite.jobs import Job
from cmbench.train.loop import train
from cmbench.train.recipe import Recipe

__all__ = ["WORK", "default_batch"]


def default_batch(shape: tuple[int, ...], device: torch.device) -> int:
    """Images a batch where nothing else is asked for: about 200,000 values on a CPU."""
    values = int(np.prod(shape))
    budget = 200_000 if device.type == "cpu" else 4_000_000
    return max(1, min(500, budget // values))


def _train(job: Job, bench: Workbench, folder: Path, tick: Tick) -> None:
    recipe = Recipe.model_validate(job.transport["recipe"])
    dataset: Dataset = create("dataset", recipe.dataset)
    path = job.transport["data_path"]
    images = dataset.open(Path(path) if path else None)
    result = train(
        recipe,
        dataset_images=images,
        teacher=_parent(job, bench, "teacher"),
        start=_parent(job, bench, "start"),
        folder=bench.store.work_folder(job.address),
        device=bench.device,
        progress=lambda state: tick(state.images, recipe.images, f"loss {state.loss:.4f}"),
    )
    (folder / "weights.safetensors").write_bytes(result.weights.read_bytes())
    (folder / "log.json").write_bytes(result.log.read_bytes())


def _parent(job: Job, bench: Workbench, role: str) -> nn.Module | None:
    given = job.spec.get(role)
    if not given:
        return None
    return bench.module(given["model"], given["weights"], job.transport[f"{role}_file"])


def _sample(job: Job, bench: Workbench, folder: Path, tick: Tick) -> None:
    generator = _generator(job, bench)
    networks = generator.networks()
    count = job.spec["count"]
    with EvaluationCounter(networks) as counter:
        pixels, speed = _made(job, bench, generator, tick, None)
    np.save(folder / "pixels.npy", pixels.numpy())
    facts = {
        "nfe": counter.per_image(count),
        "parameters": sum(p.numel() for net in networks for p in net.parameters()),
        "flops_per_evaluation": _flops(generator, job.spec, bench),
        "shape": list(generator.shape),
    }
    write_json(folder / "facts.json", facts)
    write_json(folder / "speed.json", speed)


def _prefix(job: Job, bench: Workbench, folder: Path, tick: Tick) -> None:
    """The network's outputs that several samplings begin with; without files if they can't be
    kept, in which case each makes them itself.
    """
    write_json(folder / "serves.json", [[a.kind, a.key] for a in job.transport["serves"]])
    recorder = Recorder()
    try:
        _, speed = _made(job, bench, _generator(job, bench), tick, recorder)
    except NotKeptError as error:
        write_json(folder / "not_kept.json", {"why": str(error)})
        return
    recorder.save(folder)
    write_json(folder / "speed.json", speed)


def _generator(job: Job, bench: Workbench) -> BoundGenerator:
    spec = job.spec
    module = bench.module(spec["model"], spec["weights"], job.transport["weights_file"])
    return BoundGenerator(module, create("sampler", spec["sampler"]))  # type: ignore[arg-type]


def _made(
    job: Job,
    bench: Workbench,
    generator: BoundGenerator,
    tick: Tick,
    recorder: Recorder | None,
) -> tuple[Tensor, dict[str, Any]]:
    """Pixels of a job's images, batch by batch, and how fast they came."""
    spec, count = job.spec, job.spec["count"]
    batch = job.transport.get("batch") or default_batch(generator.shape, bench.device)
    before = [bench.store.folder(Address("prefix", k)) for k in job.transport.get("chain", ())]
    calls = read_calls(before)
    seconds: list[float] = []
    pixels: list[Tensor] = []
    done = 0
    while done < count:
        size = min(batch, count - done)
        kept: list[Tensor] | None = None if recorder is None else []
        images = range(spec["first"] + done, spec["first"] + done + size)
        with replaying(generator.networks(), calls, done, size, kept):
            made, spent = _generate(generator, spec, images, bench.device)
        if made is None:
            batch = max(1, size // 2)
            continue
        if recorder is not None:
            recorder.add(kept or [])
        pixels.append(made)
        seconds.append(spent / size)
        done += size
        tick(done, count)
    steady = float(np.median(seconds[1:] or seconds))
    return torch.cat(pixels), _speed(steady + _earlier(before[-1:]), batch, bench.device)


def _earlier(last: list[Path]) -> float:
    """Seconds an image of the calls that were made before."""
    for folder in last:
        if (folder / "speed.json").is_file():
            told = json.loads((folder / "speed.json").read_text("utf-8"))
            return float(told["seconds_per_image"])
    return 0.0


def _generate(
    generator: BoundGenerator, spec: dict[str, Any], indices: range, device: torch.device
) -> tuple[Tensor | None, float]:
    """One batch of pixels and its seconds; None where the device's memory did not suffice."""
    noise = Noise(spec["seed"], indices, generator.shape, device)
    labels = noise.labels(generator.classes) if generator.classes else None
    start = time.perf_counter()
    try:
        images = generator.generate(noise, labels)
    except torch.cuda.OutOfMemoryError:
        if len(indices) == 1:
            raise
        torch.cuda.empty_cache()
        return None, 0.0
    expected = (len(indices), *generator.shape)
    if tuple(images.shape) != expected:
        raise CmbenchError(f"the model made images of shape {tuple(images.shape)}, not {expected}")
    pixels = to_pixels(images, spec.get("quantisation", "round")).cpu()
    return pixels, time.perf_counter() - start


def _flops(generator: BoundGenerator, spec: dict[str, Any], bench: Workbench) -> float | None:
    """Floating-point operations of one network evaluation of one image, by torch's counter."""
    captured: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.append((module, args, kwargs))
        raise _FirstCallError

    handles = [n.register_forward_pre_hook(keep, with_kwargs=True) for n in generator.networks()]
    try:
        _generate(generator, spec, range(1), bench.device)
    except _FirstCallError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not captured:
        return None
    module, args, kwargs = captured[0]
    # Counted once for calls of one form: a suite asks for each shard of each cell.
    number = [n is module for n in generator.networks()].index(True)
    form = [str(_form(a)) for a in (*args, *kwargs.values())]
    key = canonical([spec["model"], spec["weights"], number, form])
    return bench.flops(key, lambda: _counted(module, args, kwargs))


def _form(value: Any) -> Any:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else value


def _counted(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        module(*args, **kwargs)
    return float(flops.get_total_flops())


class _FirstCallError(Exception):
    """Stops a generator at its first network call, whose arguments are all that is wanted."""


def _features(job: Job, bench: Workbench, folder: Path, tick: Tick) -> None:
    source = bench.store.folder(Address("sample", job.needs[0].key))
    pixels = np.load(source / "pixels.npy", allow_pickle=False)
    layers = _extract(lambda a, b: pixels[a:b], len(pixels), job, bench, tick)
    for name, rows in layers.items():
        np.save(folder / f"{name}.npy", rows)


def _extract(
    read: Callable[[int, int], Any], count: int, job: Job, bench: Workbench, tick: Tick
) -> dict[str, Any]:
    extractor = bench.extractor(job.spec["extractor"])
    parts: dict[str, list[Any]] = {}
    batch = 64 if bench.device.type == "cpu" else 256
    with torch.inference_mode():
        for first in range(0, count, batch):
            block = torch.from_numpy(np.ascontiguousarray(read(first, min(first + batch, count))))
            for name, rows in extractor(block.to(bench.device)).items():
                if not bool(torch.isfinite(rows).all()):
                    bad = first + int((~torch.isfinite(rows).all(1)).nonzero()[0])
                    raise CmbenchError(f"feature '{name}' of image {bad} is not finite")
                parts.setdefault(name, []).append(rows.float().cpu().numpy())
            tick(min(first + batch, count), count)
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _reference(job: Job, bench: Workbench, folder: Path, tick: Tick) -> None:
    if "file" in job.transport:
        shipped = load_reference(Path(job.transport["file"]))
        save_reference(replace(shipped, digest=job.address.key), folder / "reference.npz")
        return
    dataset: Dataset = create("dataset", job.transport["dataset"])
    path = job.transport["data_path"]
    images = dataset.open(Path(path) if path else None)
    count = min(len(images), job.spec["count"] or len(images))
    layers = _extract(lambda a, b: images.pixels(range(a, b)), count, job, bench, tick)
    reference = reference_from_features(Features(layers), job.address.key)
    save_reference(reference, folder / "reference.npz")


def _score(job: Job, bench: Workbench, folder: Path, tick: Tick) -> None:
    metric: Metric = create("metric", job.spec["metric"])
    key = job.spec["reference"]
    reference = bench.reference(key) if key else None
    scores = metric.scores(bench.features(job.spec["features"]), reference)
    rows = {
        name: {
            "value": s.value,
            "error": s.error,
            "interval": list(s.interval) if s.interval else None,
            "count": s.count,
            "details": s.details,
        }
        for name, s in scores.items()
    }
    try:
        write_json(folder / "scores.json", rows)
    except ValueError:
        shown = json.dumps({n: r["value"] for n, r in rows.items()})
        raise CmbenchError(
            f"metric '{metric.name}' gave a number that is not finite: {shown}"
        ) from None
    tick(1, 1)


def _speed(seconds: float, batch: int, device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    return {
        "seconds_per_image": seconds,
        "batch": batch,
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "threads": None if cuda else torch.get_num_threads(),
        "peak_memory_bytes": int(torch.cuda.max_memory_allocated(device)) if cuda else None,
    }


WORK: dict[str, Callable[[Job, Workbench, Path, Tick], None]] = {
    "train": _train,
    "prefix": _prefix,
    "sample": _sample,
    "features": _features,
    "reference": _reference,
    "score": _score,
}
"""Kind of job to the function that does it."""
