"""Rules of sampling: images are in range and independent of their batch; evaluations count."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cmbench.core.nfe import EvaluationCounter
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser
from cmbench.samplers.base import BoundGenerator, Sampler
from cmbench.testing.rule import Broken, close

__all__ = ["SAMPLING_RULES", "sampled_images"]


def sampled_images(module: nn.Module, sampler: Sampler, indices: list[int]) -> Tensor:
    """Samples the images with these indices, (B, C, H, W)."""
    generator = BoundGenerator(module, sampler)  # type: ignore[arg-type]
    return generator.images(7, indices, torch.device("cpu"))


def _images(module: nn.Module, sampler: Sampler) -> None:
    images = sampled_images(module, sampler, [0, 1, 2])
    if tuple(images.shape) != (3, *module.shape):  # type: ignore[misc]
        raise Broken(
            f"3 images of shape {tuple(images.shape)[1:]} instead of {module.shape}",
            "set `shape` to the shape of the sampled images",
        )
    if not bool(torch.isfinite(images).all()):
        raise Broken("images with NaN or infinity", "check the noise range and the weights")
    low, high = float(images.min()), float(images.max())
    if low >= -1e-3 and high > 1e-2:
        raise Broken(
            f"images lie in [{low:.2g}, {high:.2g}]",
            "return images in [-1, 1], not [0, 1] or bytes",
        )


def _clean_at_sigma_min(module: nn.Module, sampler: Sampler) -> None:
    """Checks the model's own images, which even an oracle of a few points leaves unchanged."""
    if not isinstance(module, Denoiser):
        return
    x = sampled_images(module, sampler, [0, 1, 2]).clamp(-1, 1).float()
    sigma = module.round_sigma(torch.tensor([module.sigma_min])).float().expand(3)
    labels = Noise(7, [0, 1, 2], module.shape).labels(module.classes) if module.classes else None
    error = float((module(x, sigma, labels) - x).square().mean().sqrt())
    if float(sigma[0]) <= 0.05 and error > 0.3:
        raise Broken(
            f"at sigma_min = {float(sigma[0]):g} the result is {error:.2g} (RMS) away from x",
            "return the estimate of the clean image, not the noise, the score or the velocity",
        )


def _same_in_any_batch(module: nn.Module, sampler: Sampler) -> None:
    together, alone = (
        sampled_images(module, sampler, [0, 1, 2]),
        sampled_images(module, sampler, [2]),
    )
    if not close(together[2], alone[0]):
        raise Broken(
            "image 2 sampled alone differs from image 2 sampled with 0 and 1",
            "draw only from the Noise argument, not from a global generator or the batch",
        )


def _repeatable(module: nn.Module, sampler: Sampler) -> None:
    torch.manual_seed(11)
    first = sampled_images(module, sampler, [0, 1])
    torch.manual_seed(12)
    if not close(first, sampled_images(module, sampler, [0, 1])):
        raise Broken(
            "the same noise gave other images the second time",
            "use no dropout, no global generator, no state between calls",
        )


def _leaves_generators(module: nn.Module, sampler: Sampler) -> None:
    torch.manual_seed(int.from_bytes(random.randbytes(4), "big"))
    before = _states()
    sampled_images(module, sampler, [0])
    after = _states()
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise Broken(
            f"sampling changed the global generator of {' and '.join(changed)}",
            "draw only from the Noise argument, which depends on (seed, image) alone",
        )


def _states() -> dict[str, bytes]:
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the generator a plugin may touch
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr(legacy).encode(),
        "random": repr(random.getstate()).encode(),
    }


def _counted(module: nn.Module, sampler: Sampler) -> None:
    networks = BoundGenerator(module, sampler).networks()  # type: ignore[arg-type]
    with _Watch(module, networks) as watch, EvaluationCounter(networks) as counter:
        sampled_images(module, sampler, [0, 1])
    spent, stated = counter.per_image(2), sampler.nfe()
    if spent == 0 and any(True for _ in module.parameters()):
        raise Broken(
            "no evaluation was counted",
            "return the network from networks(), and call it as net(...), not net.forward(...)",
        )
    if watch.outside:
        raise Broken(
            f"layer '{watch.outside[0]}' runs outside of the modules that networks() returns",
            "return every module that computes from networks()",
        )
    if watch.repeated > 1 and spent:
        raise Broken(
            f"one counted evaluation runs the same layer {watch.repeated} times",
            "return the inner network from networks(), so that each of its calls counts",
        )
    if stated is not None and spent != stated:
        raise Broken(
            f"{spent:g} network calls per image were counted, {stated} stated by the sampler",
            "call the network once in each forward; if the second call is guidance, give the "
            "scale in the suite as guidance: W",
        )


class _Watch:
    """Records which layers with weights run inside counted networks, which outside, how often."""

    def __init__(self, module: nn.Module, networks: list[nn.Module]) -> None:
        self.depth, self.repeated = 0, 0
        self.outside: list[str] = []
        self._calls: dict[str, int] = {}
        self._module, self._networks, self._handles = module, networks, list[Any]()

    def __enter__(self) -> "_Watch":
        for network in self._networks:
            self._handles.append(network.register_forward_pre_hook(self._enter))
            self._handles.append(network.register_forward_hook(self._leave))
        for name, layer in self._module.named_modules():
            heavy = isinstance(layer, nn.Conv2d | nn.Linear | nn.ConvTranspose2d)
            if heavy and layer not in self._networks:
                self._handles.append(layer.register_forward_pre_hook(self._layer(name)))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _enter(self, *_: object) -> None:
        self.depth += 1
        if self.depth == 1:
            self._calls.clear()

    def _leave(self, *_: object) -> None:
        self.depth -= 1

    def _layer(self, name: str) -> Callable[..., None]:
        def record(*_: object) -> None:
            if self.depth == 0:
                self.outside.append(name)
            self._calls[name] = self._calls.get(name, 0) + 1
            self.repeated = max(self.repeated, self._calls[name]) if self.depth else self.repeated

        return record


SAMPLING_RULES: dict[str, Callable[[nn.Module, Sampler], None]] = {
    "sampled images lie in [-1, 1]": _images,
    "at sigma_min it returns its input": _clean_at_sigma_min,
    "image i is the same in any batch": _same_in_any_batch,
    "the same noise gives the same images": _repeatable,
    "no global random generator is changed": _leaves_generators,
    "every evaluation is counted": _counted,
}
