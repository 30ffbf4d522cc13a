"""Translates the tensors of DDPM's files to those of `UNet`.

The names are diffusers', old and new, or those of the first PyTorch port
(pesser/pytorch_diffusion), which numbers the levels of the decoder from the top.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmbench.nets._unet import UNet
from cmbench.nets._unet_blocks import Block, Strided

__all__ = ["from_ddpm"]


@dataclass(frozen=True)
class _Names:
    """Names of the parts in one layout; `{i}` is a level, `{j}` a block."""

    places: dict[str, str]
    block: dict[str, str]
    attention: dict[str, tuple[str, ...]]
    up_from_top: bool


_RESIDUAL = {"norm0": "norm1", "conv0": "conv1", "norm1": "norm2", "conv1": "conv2"}
_DIFFUSERS = _Names(
    places={
        "embed.map_layer0": "time_embedding.linear_1",
        "embed.map_layer1": "time_embedding.linear_2",
        "first": "conv_in",
        "norm": "conv_norm_out",
        "last": "conv_out",
        "down": "down_blocks.{i}.resnets.{j}",
        "down_attention": "down_blocks.{i}.attentions.{j}",
        "downsample": "down_blocks.{i}.downsamplers.0",
        "middle": "mid_block.resnets.{j}",
        "middle_attention": "mid_block.attentions.{j}",
        "up": "up_blocks.{i}.resnets.{j}",
        "up_attention": "up_blocks.{i}.attentions.{j}",
        "upsample": "up_blocks.{i}.upsamplers.0",
    },
    block={**_RESIDUAL, "affine": "time_emb_proj", "skip": "conv_shortcut"},
    attention={
        "norm2": ("group_norm",),
        "q": ("to_q", "query"),
        "k": ("to_k", "key"),
        "v": ("to_v", "value"),
        "proj": ("to_out.0", "proj_attn"),
    },
    up_from_top=False,
)
_PORT = _Names(
    places={
        "embed.map_layer0": "temb.dense.0",
        "embed.map_layer1": "temb.dense.1",
        "first": "conv_in",
        "norm": "norm_out",
        "last": "conv_out",
        "down": "down.{i}.block.{j}",
        "down_attention": "down.{i}.attn.{j}",
        "downsample": "down.{i}.downsample",
        "middle": "mid.block_{k}",
        "middle_attention": "mid.attn_{k}",
        "up": "up.{i}.block.{j}",
        "up_attention": "up.{i}.attn.{j}",
        "upsample": "up.{i}.upsample",
    },
    block={**_RESIDUAL, "affine": "temb_proj", "skip": "nin_shortcut"},
    attention={
        "norm2": ("norm",),
        "q": ("q",),
        "k": ("k",),
        "v": ("v",),
        "proj": ("proj_out",),
    },
    up_from_top=True,
)


def from_ddpm(net: UNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates the names of a UNet2DModel or of the port; joins queries, keys and values.

    Unknown tensors keep their names, so that `fill` reports them.
    """
    names = _PORT if "temb.dense.0.weight" in state else _DIFFUSERS
    rest = dict(state)
    translated: dict[str, Tensor] = {}
    for ours, theirs in _pairs(net, names):
        parts = [_taken(rest, options) for options in theirs]
        if all(part is not None for part in parts):
            joined = torch.cat([part for part in parts if part is not None])
            translated[ours] = _shaped(joined, ours)
        else:
            missing = zip(theirs, parts, strict=True)
            rest.update({o[0]: part for o, part in missing if part is not None})
    if "class_embedding.weight" in rest and "embed.map_label.weight" in net.state_dict():
        translated["embed.map_label.weight"] = rest.pop("class_embedding.weight").T
    return translated | rest


def _taken(rest: dict[str, Tensor], options: tuple[str, ...]) -> Tensor | None:
    for name in options:
        if name in rest:
            return rest.pop(name)
    return None


def _shaped(value: Tensor, ours: str) -> Tensor:
    """Reshapes the linear layers of attention to 1x1 convolutions."""
    attention = ours.endswith((".qkv.weight", ".proj.weight"))
    return value[:, :, None, None] if attention and value.ndim == 2 else value


def _pairs(net: UNet, names: _Names) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yields our names with theirs: a list of tensors to be joined, each with alternatives."""
    parameters = set(net.state_dict())
    for ours, theirs in _modules(net, names):
        for part in ("weight", "bias"):
            if f"{ours}.{part}" in parameters:
                yield f"{ours}.{part}", [tuple(f"{t}.{part}" for t in o) for o in theirs]


def _modules(net: UNet, names: _Names) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    for place in ("embed.map_layer0", "embed.map_layer1"):
        yield place, [(names.places[place],)]
    sides = {side: level for level, _, side in net.sides()}
    lowest = len(sides) - 1
    for name, layer in [*_entries("enc", net.enc), *_entries("dec", net.dec)]:
        way, entry = name.split(".")
        side, _, what = entry.partition("_")
        level, number = sides[side], int(what[-1]) if what[-1].isdecimal() else 0
        place = _place(way, what)
        if place == "upsample":
            level += 1
        elif place == "downsample":
            level -= 1
        if place.startswith("up") and not names.up_from_top:
            level = lowest - level
        if isinstance(layer, Block):
            yield from _block(name, names, place, {"i": level, "j": number})
        else:
            spot = names.places[place].format(i=level, j=number, k=number + 1)
            strided = isinstance(layer, Strided)
            yield (f"{name}.conv", [(f"{spot}.conv",)]) if strided else (name, [(spot,)])


def _entries(way: str, layers: nn.ModuleDict) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in layers.items():
        yield f"{way}.{name}", layer


def _place(way: str, what: str) -> str:
    fixed = {
        "conv": "first",
        "aux_norm": "norm",
        "aux_conv": "last",
        "up": "upsample",
        "down": "downsample",
    }
    if what in fixed:
        return fixed[what]
    if what.startswith("in"):
        return "middle"
    return "down" if way == "enc" else "up"


def _block(
    name: str, names: _Names, place: str, at: dict[str, int]
) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    spot = names.places[place].format(**at, k=at["j"] + 1)
    for ours, theirs in names.block.items():
        yield f"{name}.{ours}", [(f"{spot}.{theirs}",)]
    attention_name = names.places.get(f"{place}_attention")
    if attention_name is None:
        return
    at_attention = attention_name.format(**at, k=at["j"] + 1)
    parts = {
        part: tuple(f"{at_attention}.{name}" for name in options)
        for part, options in names.attention.items()
    }
    yield f"{name}.norm2", [parts["norm2"]]
    yield f"{name}.qkv", [parts["q"], parts["k"], parts["v"]]
    yield f"{name}.proj", [parts["proj"]]
