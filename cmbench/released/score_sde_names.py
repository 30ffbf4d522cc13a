"""Translates score SDE's checkpoints, one flat list `all_modules`, to the tensors of `UNet`."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.nets._unet import UNet
from cmbench.nets._unet_blocks import Block, Strided

__all__ = ["from_score_sde", "score_sde_states"]


class _Leaf(NamedTuple):
    """One tensor of the authors', and where it goes: a name of ours, turned where matrices are.

    `third` is 0, 1 or 2 for queries, keys and values, which are rows of one tensor here.
    """

    theirs: str
    ours: str
    turned: bool = False
    third: int | None = None


def score_sde_states(
    net: UNet, checkpoint: Any, *, where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns averaged and raw weights under the authors' names, without `module.`.

    Checkpoints are {optimizer, model, ema, step}. The average is a list without names, in the
    order of the network's trainable parameters; the fixed Fourier frequencies are not in it and
    are taken from `model`. A bare state_dict is accepted too.

    Raises:
        UserError: If the file is not such a checkpoint, or its list does not fit the network.
    """
    if not isinstance(checkpoint, Mapping):
        raise _foreign(f"the file holds a {type(checkpoint).__name__}", where)
    model = checkpoint.get("model", checkpoint)
    if not isinstance(model, Mapping) or not all(isinstance(v, Tensor) for v in model.values()):
        raise _foreign("the file holds no state_dict", where)
    raw = {key.removeprefix("module."): value for key, value in model.items()}
    raw.pop("sigmas", None)
    if "ema" not in checkpoint:
        return raw, raw
    averaged = (
        checkpoint["ema"].get("shadow_params") if isinstance(checkpoint["ema"], Mapping) else None
    )
    if not isinstance(averaged, list | tuple):
        raise _foreign("its 'ema' has no list 'shadow_params'", where)
    return {**raw, **_named(net, list(averaged), raw, where)}, raw


def from_score_sde(net: UNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates the authors' names; matrices of (in, out) become 1x1 kernels.

    Unknown tensors keep their names, so that `fill` reports them.
    """
    leaves = {leaf.theirs: leaf for leaf in _leaves(net)}
    translated: dict[str, Tensor] = {}
    joined: dict[str, dict[int, Tensor]] = {}
    for name, value in state.items():
        leaf = leaves.get(name)
        if leaf is None:
            translated[name] = value
            continue
        laid = value.T[:, :, None, None] if leaf.turned and value.ndim == 2 else value
        if leaf.third is None:
            translated[leaf.ours] = laid
        else:
            joined.setdefault(leaf.ours, {})[leaf.third] = laid
    for ours, thirds in joined.items():
        if len(thirds) == 3:
            translated[ours] = torch.cat([thirds[i] for i in range(3)])
    return translated


def _foreign(what: str, where: str) -> UserError:
    return UserError(what, where=where, expected="a checkpoint of score_sde_pytorch")


def _named(
    net: UNet, averaged: list[Any], raw: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    frozen = net.embed.map_layer0.weight.shape[1] if _fourier(net) else 0
    names = [leaf.theirs for leaf in _leaves(net)][1 if frozen else 0 :]
    if len(names) != len(averaged):
        raise UserError(
            f"the file's average has {len(averaged)} tensors",
            where=where,
            expected=f"{len(names)}, by the configuration of the card",
        )
    for name, value in zip(names, averaged, strict=True):
        same = name in raw and isinstance(value, Tensor) and raw[name].shape == value.shape
        if not same:
            raise UserError(
                f"the file's average and its weights differ at '{name}'",
                where=where,
                expected="the same tensors in both, by the configuration of the card",
            )
    return dict(zip(names, averaged, strict=True))


def _fourier(net: UNet) -> bool:
    return "embed.freqs" in net.state_dict()


def _leaves(net: UNet) -> Iterator[_Leaf]:
    """Yields every tensor of the authors' network in the order of its parameters."""
    index = 0
    if _fourier(net):
        yield _Leaf("all_modules.0.W", "embed.freqs")
        index = 1
    for i in range(2):
        yield from _pair(f"all_modules.{index + i}", f"embed.map_layer{i}")
    index += 2
    entries = [(f"enc.{name}", layer) for name, layer in net.enc.items()]
    entries += [(f"dec.{name}", layer) for name, layer in net.dec.items()]
    for ours, layer in entries:
        place = f"all_modules.{index}"
        if isinstance(layer, Block):
            yield from _block(place, ours, layer, net)
            index += bool(layer.heads)
            if layer.heads:
                yield from _attention(f"all_modules.{index}", ours)
        elif ours.endswith(("_aux_down", "_aux_up")):
            continue  # Filters without weights are not in the authors' list.
        elif isinstance(layer, Strided):
            if layer.conv is not None:
                yield from _pair(f"{place}.Conv_0", f"{ours}.conv")
        elif ours.endswith("_aux_residual"):
            yield from _pair(f"{place}.Conv2d_0", ours)
        elif ours.endswith("_aux_skip"):
            yield from _pair(f"{place}.Conv_0", ours)
        else:
            yield from _pair(place, ours)
        index += 1


def _pair(theirs: str, ours: str) -> Iterator[_Leaf]:
    for part in ("weight", "bias"):
        yield _Leaf(f"{theirs}.{part}", f"{ours}.{part}")


def _block(theirs: str, ours: str, block: Block, net: UNet) -> Iterator[_Leaf]:
    parts = {
        "GroupNorm_0": "norm0",
        "Conv_0": "conv0",
        "Dense_0": "affine",
        "GroupNorm_1": "norm1",
        "Conv_1": "conv1",
    }
    for name, own in parts.items():
        yield from _pair(f"{theirs}.{name}", f"{ours}.{own}")
    if not any(True for _ in block.skip.parameters()):
        return
    if net.plan.resampling == "block":
        yield from _pair(f"{theirs}.Conv_2", f"{ours}.skip")
    else:
        yield from _matrix(f"{theirs}.NIN_0", f"{ours}.skip")


def _attention(theirs: str, ours: str) -> Iterator[_Leaf]:
    yield from _pair(f"{theirs}.GroupNorm_0", f"{ours}.norm2")
    for third in range(3):
        yield from _matrix(f"{theirs}.NIN_{third}", f"{ours}.qkv", third)
    yield from _matrix(f"{theirs}.NIN_3", f"{ours}.proj")


def _matrix(theirs: str, ours: str, third: int | None = None) -> Iterator[_Leaf]:
    yield _Leaf(f"{theirs}.W", f"{ours}.weight", True, third)
    yield _Leaf(f"{theirs}.b", f"{ours}.bias", False, third)
