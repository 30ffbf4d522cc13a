"""Translates cold diffusion's checkpoints to the tensors of its networks.

A file holds {step, model, ema}. Both states are those of the authors' wrapper around the network,
with or without DataParallel's `module.` before or after the wrapper's attribute (`denoise_fn`,
`defade_fn` in the inpainting code). The wrapper also stores blur kernels, the process's constants,
and, in the snow and colour code, a second network without severity input.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.nets._cold_blocks import ColdNet
from cmbench.nets._unet import UNet
from cmbench.released.ddpm_names import from_ddpm

__all__ = ["ColdStates", "cold_states", "from_cold"]

_NETWORKS = ("denoise_fn", "defade_fn")
_KERNELS = "gaussian_kernels"
_ASIDE = ("one_shot_denoise_fn", "one_shot_defade_fn")
"""A second network without severity input, trained for comparison; it is not sampled."""


@dataclass(frozen=True)
class ColdStates:
    """Contents of a checkpoint.

    Args:
        network: The averaged weights under the authors' names, without prefixes.
        kernels: Blur kernels (C, 1, k, k) in the order of their steps; empty unless it is a blur.
        process: The wrapper's constants by name, such as `alphas_cumprod`.
    """

    network: dict[str, Tensor]
    kernels: list[Tensor]
    process: dict[str, Tensor]


def cold_states(checkpoint: Any, *, where: str) -> ColdStates:
    """Splits a checkpoint's averaged weights (`ema`), or a bare state_dict, into its parts.

    Raises:
        UserError: If the file is not such a checkpoint, or holds no network.
    """
    state = checkpoint.get("ema", checkpoint) if isinstance(checkpoint, Mapping) else checkpoint
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        lacking = isinstance(checkpoint, Mapping) and "model" in checkpoint
        raise UserError(
            "the checkpoint lacks averaged weights" if lacking else "not a checkpoint of tensors",
            where=where,
            expected="{step, model, ema} of Cold-Diffusion-Models, or a state_dict",
        )
    network: dict[str, Tensor] = {}
    kernels: dict[int, Tensor] = {}
    process: dict[str, Tensor] = {}
    bare = not any(part in _NETWORKS for key in state for part in key.split("."))
    for key, value in state.items():
        parts = _without_module(key.split("."))
        if parts[0] in _NETWORKS or bare:
            network[".".join(parts if bare else _without_module(parts[1:]))] = value
        elif parts[0] == _KERNELS and len(parts) > 1 and parts[1].isdecimal():
            kernels[int(parts[1])] = value
        elif len(parts) == 1:
            process[key] = value
        elif parts[0] not in _ASIDE:
            raise UserError(
                f"the file's '{key}' belongs neither to the network nor to a blur",
                where=where,
                expected=f"keys under {' or '.join(_NETWORKS)}, or {_KERNELS}",
            )
    named = {key.rsplit(".", 1)[-1]: value for key, value in process.items()}
    return ColdStates(network, [kernels[i] for i in sorted(kernels)], named)


def from_cold(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates the authors' names to those of `cold_unet` or `cold_model2`.

    Unknown tensors keep their names, so that `fill` reports them.
    """
    if isinstance(net, UNet):
        return from_ddpm(net, state)
    if not isinstance(net, ColdNet):
        return dict(state)
    expected, names = net.state_dict(), dict(_names(net))
    translated = {}
    for key, value in state.items():
        ours = names.get(key, key)
        # The authors store norms with the axes that they are broadcast along.
        flat = ours in expected and expected[ours].ndim == 1 and value.ndim == 4
        translated[ours] = value.flatten() if flat else value
    return translated


def _without_module(parts: list[str]) -> list[str]:
    while len(parts) > 1 and parts[0] == "module":
        parts = parts[1:]
    return parts


_BLOCK = {
    "depthwise": "ds_conv",
    "told": "mlp.1",
    "widen": "net.1",
    "narrow": "net.3",
    "skip": "res_conv",
}
_ATTENTION = {"qkv": "fn.fn.to_qkv", "proj": "fn.fn.to_out"}


def _names(net: ColdNet) -> Iterator[tuple[str, str]]:
    """Yields pairs of the authors' name and ours."""
    for i in range(2):
        yield from _pair(f"time_mlp.{2 * i + 1}", f"time.layer{i}")
    for way, levels in (("down", net.down), ("up", net.up)):
        for i in range(len(levels)):
            yield from _block(f"{way}s.{i}.0", f"{way}.{i}.block0")
            yield from _block(f"{way}s.{i}.1", f"{way}.{i}.block1")
            yield from _attention(f"{way}s.{i}.2", f"{way}.{i}.attention")
            yield from _pair(f"{way}s.{i}.3", f"{way}.{i}.resample")
    yield from _block("mid_block1", "middle0")
    yield from _attention("mid_attn", "attention")
    yield from _block("mid_block2", "middle1")
    yield from _block("final_conv.0", "last_block")
    yield from _pair("final_conv.1", "last")


def _pair(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for part in ("weight", "bias"):
        yield f"{theirs}.{part}", f"{ours}.{part}"


def _norm(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield f"{theirs}.g", f"{ours}.weight"
    yield f"{theirs}.b", f"{ours}.bias"


def _block(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for name, suffix in _BLOCK.items():
        yield from _pair(f"{theirs}.{suffix}", f"{ours}.{name}")
    yield from _norm(f"{theirs}.net.0", f"{ours}.norm")


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for name, suffix in _ATTENTION.items():
        yield from _pair(f"{theirs}.{suffix}", f"{ours}.{name}")
    yield from _norm(f"{theirs}.fn.norm", f"{ours}.norm")
