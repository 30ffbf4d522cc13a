"""How long one evaluation of a network takes here, from short batches with random weights."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from cmbench.core.loader import create
from cmbench.denoise.model import Model
from cmbench.engine.sampling import default_batch
from cmbench.samplers.base import BoundGenerator, Sampler

__all__ = ["outline", "probe_network"]

_PROBED_PARAMETERS = 50_000_000
_PROBED_IMAGES = 32
_HEAVY_PARAMETERS = 5_000_000
"""From here on one image, once, has to do on a CPU."""


def outline(model: Model) -> nn.Module:
    """The model's module on the meta device, or a real one where building it computes."""
    try:
        with torch.device("meta"):
            return model.build()
    except (RuntimeError, NotImplementedError):
        with torch.random.fork_rng(devices=[]):
            return model.build()


def probe_network(model: Model, sampler: Sampler, device: torch.device) -> float | None:
    """Seconds of one evaluation of one image; None on a CPU for what is too large to try there."""
    size = sum(p.numel() for p in outline(model).parameters())
    if size > _PROBED_PARAMETERS and device.type == "cpu":
        return None
    with torch.random.fork_rng(devices=[]):
        module = model.build().to(device).eval()
    module = module.to(memory_format=torch.channels_last)
    generator = BoundGenerator(module, create("sampler", sampler.spec()))  # type: ignore[arg-type]
    heavy = size > _HEAVY_PARAMETERS and device.type == "cpu"
    batch = 1 if heavy else min(_PROBED_IMAGES, default_batch(generator.shape, device))
    with _StopAfter(generator.networks(), calls=1 if heavy else 3) as timed:
        generator.images(0, range(batch), device)
        timed.mark(batch)
    return timed.best if timed.best < float("inf") else None


class _Enough(Exception):
    """Enough calls were timed."""


class _StopAfter:
    """Times from one call of a network to the next, the sampler's own work in between included,
    and leaves the sampler after `calls` of them: a thousand steps are probed in three.
    """

    def __init__(self, networks: Iterable[nn.Module], calls: int) -> None:
        self._networks, self._left = list(networks), calls
        self._handles: list[Any] = []
        self._last, self._rows, self.best = time.perf_counter(), 0, float("inf")

    def mark(self, rows: int) -> None:
        """The rows of the call before are done; `rows` of the next one begin."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._rows:
            self.best = min(self.best, (now - self._last) / self._rows)
        self._last, self._rows = now, rows

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.ndim > 0]
        self.mark(len(tensors[0]) if tensors else 1)
        if self._left == 0:
            raise _Enough
        self._left -= 1

    def __enter__(self) -> Self:
        for net in self._networks:
            self._handles.append(net.register_forward_pre_hook(self._called, with_kwargs=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        while self._handles:
            self._handles.pop().remove()
        return kind is _Enough
