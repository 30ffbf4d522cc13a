"""Times one evaluation of a network on this machine, on short batches with random weights."""

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
"""Number of parameters above which a probe on a CPU is one evaluation of one image."""


def outline(model: Model) -> nn.Module:
    """Builds the model's module on the meta device, or a real one if building it computes."""
    try:
        with torch.device("meta"):
            return model.build()
    except (RuntimeError, NotImplementedError):
        with torch.random.fork_rng(devices=[]):
            return model.build()


def probe_network(model: Model, sampler: Sampler, device: torch.device) -> float | None:
    """Returns the seconds per evaluation of one image; None if it is too large for this CPU."""
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
    """Stops a sampler once enough calls were timed."""


class _StopAfter:
    """Times the interval from one network call to the next, including the sampler's own work,
    and stops the sampler after `calls` calls, so that three steps probe a thousand.
    """

    def __init__(self, networks: Iterable[nn.Module], calls: int) -> None:
        self._networks, self._left = list(networks), calls
        self._handles: list[Any] = []
        self._last, self._rows, self.best = time.perf_counter(), 0, float("inf")

    def mark(self, rows: int) -> None:
        """Ends the timing of the last call and starts that of a call with `rows` rows."""
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
