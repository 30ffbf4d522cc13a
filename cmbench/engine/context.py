"""What jobs share while a process works: the store, the device, and the last heavy objects."""

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
    """Called with (done, total) as a job goes on, and a word to show beside them."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Shows it."""
        ...


_KEPT = {"module": 2, "flops": 64, "extractor": 1, "features": 2, "reference": 2}


class JobContext:
    """Builds modules, extractors and features on demand and keeps the last few of each.

    Args:
        store: Where outputs lie.
        device: Where networks run.
    """

    def __init__(self, store: Store, device: torch.device) -> None:
        self.store, self.device = store, device
        self._kept: dict[str, OrderedDict[str, Any]] = {kind: OrderedDict() for kind in _KEPT}

    def module(
        self, model: dict[str, Any], weights: dict[str, str], file: str | None
    ) -> nn.Module:
        """The model with its weights, on the device, in evaluation mode.

        Raises:
            UserError: If the weights don't fit the model.
        """
        key = canonical([model, weights])
        return self._keep("module", key, lambda: self._build(model, weights, file))

    def extractor(self, spec: dict[str, Any]) -> Extractor:
        """The built extractor."""
        return self._keep(
            "extractor", canonical(spec), lambda: self._named(spec).build(self.device)
        )

    def features(self, keys: list[str]) -> Features:
        """Features of a cell: its shards' features in order."""
        return self._keep("features", canonical(keys), lambda: self._joined(keys))

    def reference(self, key: str) -> Reference:
        """A reference made earlier."""
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
        kept = self._kept[kind]
        if key not in kept:
            while len(kept) >= _KEPT[kind]:
                kept.popitem(last=False)
            kept[key] = make()
        kept.move_to_end(key)
        value: T = kept[key]
        return value

    def flops(self, key: str, count: Callable[[], float]) -> float:
        """What `count` gives, counted once."""
        return self._keep("flops", key, count)

    def release(self, job: Job) -> None:
        """Drops the beginnings that a job went on from, once all that they serve are there.

        Called when the job's output is in the store; a run that is killed before finds them.
        """
        for address in job.needs:
            if address.kind != "prefix":
                continue
            served = self._served(address)
            if served and all(self.store.present(a) for a in served):
                self.store.discard(address)

    def _served(self, prefix: Address) -> list[Address]:
        try:
            told = json.loads((self.store.folder(prefix) / "serves.json").read_text("utf-8"))
        except (OSError, ValueError):
            return []
        return [Address(kind, key) for kind, key in told]
