"""A process's shared state: store, device, and a small cache of built networks and extractors."""

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from cmbench.cards.open import open_module
from cmbench.core.digests import canonical
from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.denoise.model import Model
from cmbench.features.base import Extractor, FeatureExtractor
from cmbench.metrics.base import Features, Reference
from cmbench.metrics.statistics.file import load_reference
from cmbench.store.jobs import Job
from cmbench.store.store import Address, Store

__all__ = ["JobContext", "Tick"]

T = TypeVar("T")


class Tick(Protocol):
    """Receives a job's progress: (done, total) and a note such as the loss."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Reports that `done` of `total` steps are finished."""
        ...


_KEPT = {"module": 2, "flops": 64, "extractor": 1, "features": 2, "reference": 2}


class JobContext:
    """Builds modules, extractors and features on demand and keeps the last few of each.

    Args:
        store: The cache of outputs.
        device: The device on which networks run.
    """

    def __init__(self, store: Store, device: torch.device) -> None:
        self.store, self.device = store, device
        self._kept: dict[str, OrderedDict[str, Any]] = {kind: OrderedDict() for kind in _KEPT}

    def module(
        self, model: dict[str, Any], weights: dict[str, str], file: str | None
    ) -> nn.Module:
        """Returns the model with its weights, on the device, in evaluation mode.

        Raises:
            UserError: If the weights don't fit the model.
        """
        key = canonical([model, weights])
        return self._keep("module", key, lambda: self._build(model, weights, file))

    def extractor(self, spec: dict[str, Any]) -> Extractor:
        """Returns the extractor, built on the device."""
        return self._keep(
            "extractor", canonical(spec), lambda: self._named(spec).build(self.device)
        )

    def features(self, keys: list[str]) -> Features:
        """Returns the features of a cell: those of its shards, in order."""
        return self._keep("features", canonical(keys), lambda: self._joined(keys))

    def reference(self, key: str) -> Reference:
        """Returns a reference from the store."""
        folder = self.store.folder(Address("reference", key))
        return self._keep("reference", key, lambda: load_reference(folder / "reference.npz"))

    def _build(
        self, model: dict[str, Any], weights: dict[str, str], file: str | None
    ) -> nn.Module:
        adapter: Model = create("model", model)
        path = self._weights_path(weights, file)
        return open_module(adapter, path, self.device, channels_last=True)

    def _weights_path(self, weights: dict[str, str], file: str | None) -> Path | None:
        if "train" in weights:
            folder = self.store.folder(Address("train", weights["train"]))
            return folder / "weights.safetensors"
        if "sha256" in weights and file is None:
            raise UserError("a job with a weights file came without its path")
        return Path(file) if file else None

    def _named(self, spec: dict[str, Any]) -> FeatureExtractor:
        extractor: FeatureExtractor = create("features", spec)
        return extractor

    def _joined(self, keys: list[str]) -> Features:
        parts = [self._shard(key) for key in keys]
        layers = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return Features(layers)

    def _shard(self, key: str) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        folder = self.store.folder(Address("features", key))
        return {f.stem: np.load(f, allow_pickle=False) for f in sorted(folder.glob("*.npy"))}

    def _keep(self, kind: str, key: str, make: Callable[[], T]) -> T:
        cache = self._kept[kind]
        if key not in cache:
            while len(cache) >= _KEPT[kind]:
                cache.popitem(last=False)
            cache[key] = make()
        cache.move_to_end(key)
        value: T = cache[key]
        return value

    def flops(self, key: str, count: Callable[[], float]) -> float:
        """Returns `count()`, called once per key."""
        return self._keep("flops", key, count)

    def release(self, job: Job) -> None:
        """Deletes the prefixes that a job replayed, once all outputs that need them are stored.

        It is called after the job's output is stored, so a run that is killed earlier reuses them.
        """
        for address in job.needs:
            if address.kind != "prefix":
                continue
            served = self._served(address)
            if served and all(self.store.present(a) for a in served):
                self.store.discard(address)

    def _served(self, prefix: Address) -> list[Address]:
        try:
            served = json.loads((self.store.folder(prefix) / "serves.json").read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return [Address(kind, key) for kind, key in served]
