"""Translates the tensors of official files to those of `UNet`: names, kernels, order of qkv.

qkv rows are ordered (three, heads, width) here and in consistency_models, (heads, width, three)
in EDM, (heads, three, width) in improved- and guided-diffusion; JAX has three matrices.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.nets._unet import UNet
from cmbench.nets._unet_blocks import Block, Conv, Strided

__all__ = ["fill", "from_edm", "from_flax", "from_openai"]

QKVOrder = Literal["three-heads-width", "heads-three-width"]


def fill(net: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Loads translated tensors strictly; float16 is cast up.

    Raises:
        UserError: If a tensor is missing, unexpected, or of another shape: the file's
            architecture differs from the configuration.
    """
    expected = net.state_dict()
    wrong = [f"lacks '{k}'" for k in expected if k not in state]
    wrong += [f"has '{k}' too" for k in state if k not in expected]
    wrong += [
        f"'{k}' is {tuple(state[k].shape)}, not {tuple(expected[k].shape)}"
        for k in expected
        if k in state and expected[k].shape != state[k].shape
    ]
    if wrong:
        raise UserError(
            f"the weights are of another architecture: {len(wrong)} tensors differ; "
            f"the file {wrong[0]}",
            where=where,
            expected=f"{len(expected)} tensors, by the configuration of the card",
        )
    net.load_state_dict(dict(state))


def from_edm(net: UNet, state: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Translates EDM's names (without `model.`) and checks the filters stored in its files.

    Raises:
        UserError: If a stored resampling filter differs from the configuration's.
    """
    translated = {}
    side = f"{net.plan.resolution}x{net.plan.resolution}"
    renamed = {"out_norm": f"dec.{side}_aux_norm", "out_conv": f"dec.{side}_aux_conv"}
    for name, value in state.items():
        if name.endswith("resample_filter"):
            _check_filter(net, name, value, where)
            continue
        head, _, tail = name.partition(".")
        key = f"{renamed[head]}.{tail}" if head in renamed else name
        if head.startswith("map_"):
            key = f"embed.{tail}" if head == "map_noise" else f"embed.{name}"
        translated[key] = value
    for name, block in _attentive(net):
        for part in ("weight", "bias"):
            key = f"{name}.qkv.{part}"
            if key in translated:
                translated[key] = _rows(translated[key], block.heads, (2, 0, 1), ("h", "d", 3))
    return translated


def from_openai(net: UNet, state: Mapping[str, Tensor], *, order: QKVOrder) -> dict[str, Tensor]:
    """Translates UNetModel's names and the order of its qkv rows; 3-D kernels become 4-D.

    Unknown tensors keep their names, so that `fill` reports them.
    """
    names = dict(_openai_names(net))
    translated = {names.get(key, key): value for key, value in state.items()}
    if "embed.map_label.weight" in translated:
        translated["embed.map_label.weight"] = translated["embed.map_label.weight"].T
    for name, block in _attentive(net):
        for part in ("qkv", "proj"):
            key = f"{name}.{part}.weight"
            if key in translated and translated[key].ndim == 3:
                translated[key] = translated[key].unsqueeze(-1)
        if order == "heads-three-width":
            for part in ("weight", "bias"):
                key = f"{name}.qkv.{part}"
                if key in translated:
                    translated[key] = _rows(translated[key], block.heads, (1, 0, 2), ("h", 3, "d"))
    return translated


def from_flax(net: UNet, tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Translates a parameter tree of consistency_models_cifar10's NCSN++ (Flax, JAX).

    Flax numbers modules of a class in the order of their calls; kernels are HWIO, dense kernels
    (in, out). Unknown leaves keep their paths, so that `fill` reports them.
    """
    leaves = dict(_leaves(tree))
    translated: dict[str, Tensor] = {}
    for target, source, change in _flax_names(net):
        if source in leaves:
            translated[target] = torch.from_numpy(change(leaves.pop(source)).copy())
    for name, number in _attention_numbers(net):
        joined = _joined_qkv(leaves, f"AttnBlockpp_{number}")
        if joined is not None:
            translated[f"{name}.qkv.weight"], translated[f"{name}.qkv.bias"] = joined
    return translated | {name: torch.from_numpy(value.copy()) for name, value in leaves.items()}


def _check_filter(net: UNet, name: str, value: Tensor, where: str) -> None:
    line = torch.tensor(net.plan.style.taps, dtype=torch.float32)
    wanted = torch.outer(line, line) / line.sum() ** 2
    same = value.shape[-2:] == wanted.shape and torch.allclose(value[0, 0].float(), wanted)
    if not same:
        raise UserError(
            f"'{name}' differs from the filter of resample_filter {net.plan.style.taps}",
            where=where,
            expected="the resample_filter that the network was trained with",
        )


def _attentive(net: UNet) -> Iterator[tuple[str, Block]]:
    for name, layer in net.named_modules():
        if isinstance(layer, Block) and layer.heads:
            yield name, layer


def _rows(
    value: Tensor, heads: int, order: tuple[int, int, int], axes: tuple[str | int, ...]
) -> Tensor:
    """Reorders qkv rows, which are laid out along `axes`, to (three, heads, width)."""
    sizes = {"h": heads, "d": len(value) // (3 * heads), 3: 3}
    laid = value.reshape(*(sizes[a] for a in axes), *value.shape[1:])
    rest = range(3, laid.ndim)
    return laid.permute(*order, *rest).reshape(value.shape)


_OPENAI_BLOCK = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
    "skip": "skip_connection",
}
_OPENAI_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}


def _openai_names(net: UNet) -> Iterator[tuple[str, str]]:
    """Yields pairs of OpenAI's name and ours for all parameters of the network."""
    parameters = set(net.state_dict())
    yield "label_emb.weight", "embed.map_label.weight"
    for theirs, ours in _openai_places(net):
        for part in ("weight", "bias"):
            if f"{ours}.{part}" in parameters:
                yield f"{theirs}.{part}", f"{ours}.{part}"


def _openai_places(net: UNet) -> Iterator[tuple[str, str]]:
    yield "time_embed.0", "embed.map_layer0"
    yield "time_embed.2", "embed.map_layer1"
    for index, (name, layer) in enumerate(net.enc.items()):
        yield from _openai_layer(f"input_blocks.{index}", 0, f"enc.{name}", layer)
    index, child = -1, 0
    for name, layer in net.dec.items():
        if name.endswith("_in0"):
            yield from _openai_layer("middle_block", 0, f"dec.{name}", layer)
        elif name.endswith("_in1"):
            yield from _openai_layer("middle_block", 2, f"dec.{name}", layer)
        elif "_block" in name:
            index, child = index + 1, 2 if isinstance(layer, Block) and layer.heads else 1
            yield from _openai_layer(f"output_blocks.{index}", 0, f"dec.{name}", layer)
        elif name.endswith("_up"):
            yield from _openai_layer(f"output_blocks.{index}", child, f"dec.{name}", layer)
        else:
            yield ("out.0" if name.endswith("norm") else "out.2"), f"dec.{name}"


def _openai_layer(
    place: str, child: int, ours: str, layer: nn.Module
) -> Iterator[tuple[str, str]]:
    """Yields the names of one entry, whose attention is the next child."""
    if isinstance(layer, Conv):
        yield f"{place}.{child}", ours
    elif isinstance(layer, Strided):
        yield f"{place}.{child}.{'op' if layer.direction == 'down' else 'conv'}", f"{ours}.conv"
    else:
        for part, theirs in _OPENAI_BLOCK.items():
            yield f"{place}.{child}.{theirs}", f"{ours}.{part}"
        for part, theirs in _OPENAI_ATTENTION.items():
            yield f"{place}.{child + 1}.{theirs}", f"{ours}.{part}"


Array = np.ndarray[Any, np.dtype[Any]]
Change = Callable[[Array], Array]


def _unchanged(value: Array) -> Array:
    return value


def _dense(value: Array) -> Array:
    return value.T


def _kernel(value: Array) -> Array:
    return value.transpose(3, 2, 0, 1)


def _unit_kernel(value: Array) -> Array:
    return value.T[:, :, None, None]


def _flax_names(net: UNet) -> Iterator[tuple[str, str, Change]]:
    """Yields our name, Flax's path and the change of layout, except for queries, keys, values."""
    yield "embed.freqs", "GaussianFourierProjection_0/W", _unchanged
    for i in range(2):
        yield from _flax_pair(f"embed.map_layer{i}", f"Dense_{i}", _dense)
    blocks = attentions = pyramids = 0
    entries = [(f"enc.{name}", layer) for name, layer in net.enc.items()]
    entries += [(f"dec.{name}", layer) for name, layer in net.dec.items()]
    for ours, layer in entries:
        if isinstance(layer, Block):
            yield from _flax_block(ours, f"ResnetBlockBigGANpp_{blocks}")
            blocks += 1
            if layer.heads:
                yield from _flax_attention(ours, f"AttnBlockpp_{attentions}")
                attentions += 1
        elif ours.endswith("_aux_residual"):
            yield f"{ours}.weight", f"Downsample_{pyramids}/Conv2d_0/weight", _kernel
            yield f"{ours}.bias", f"Downsample_{pyramids}/Conv2d_0/bias", _unchanged
            pyramids += 1
        elif ours.endswith("_conv"):
            number = 1 if ours.endswith("_aux_conv") else 0
            yield from _flax_pair(ours, f"Conv_{number}", _kernel)
        else:
            yield from _flax_norm(ours, "GroupNorm_0")


def _flax_pair(ours: str, theirs: str, change: Change) -> Iterator[tuple[str, str, Change]]:
    yield f"{ours}.weight", f"{theirs}/kernel", change
    yield f"{ours}.bias", f"{theirs}/bias", _unchanged


def _flax_norm(ours: str, theirs: str) -> Iterator[tuple[str, str, Change]]:
    yield f"{ours}.weight", f"{theirs}/scale", _unchanged
    yield f"{ours}.bias", f"{theirs}/bias", _unchanged


def _flax_block(ours: str, theirs: str) -> Iterator[tuple[str, str, Change]]:
    for i in range(2):
        yield from _flax_norm(f"{ours}.norm{i}", f"{theirs}/GroupNorm_{i}")
        yield from _flax_pair(f"{ours}.conv{i}", f"{theirs}/Conv_{i}", _kernel)
    yield from _flax_pair(f"{ours}.skip", f"{theirs}/Conv_2", _kernel)
    yield from _flax_pair(f"{ours}.affine", f"{theirs}/Dense_0", _dense)


def _flax_attention(ours: str, theirs: str) -> Iterator[tuple[str, str, Change]]:
    yield from _flax_norm(f"{ours}.norm2", f"{theirs}/GroupNorm_0")
    yield f"{ours}.proj.weight", f"{theirs}/NIN_3/W", _unit_kernel
    yield f"{ours}.proj.bias", f"{theirs}/NIN_3/b", _unchanged


def _attention_numbers(net: UNet) -> Iterator[tuple[str, int]]:
    for number, (name, _) in enumerate(_attentive(net)):
        yield name, number


def _joined_qkv(leaves: dict[str, Array], place: str) -> tuple[Tensor, Tensor] | None:
    weights = [leaves.pop(f"{place}/NIN_{i}/W", None) for i in range(3)]
    biases = [leaves.pop(f"{place}/NIN_{i}/b", None) for i in range(3)]
    if any(part is None for part in [*weights, *biases]):
        return None
    rows = np.concatenate([_unit_kernel(w) for w in weights if w is not None])
    return torch.from_numpy(rows), torch.from_numpy(
        np.concatenate([b for b in biases if b is not None])
    )


def _leaves(tree: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Array]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{place}{name}/")
        else:
            yield f"{place}{name}", np.asarray(value)
