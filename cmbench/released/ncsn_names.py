"""Translates the tensors of NCSN's and NCSNv2's checkpoints to those of `RefineNet`."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from cmbench.core.errors import UserError
from cmbench.nets._ncsn_blocks import RefineNet, _ChainedPool, _Fuse, _MeanPooled, _Units

__all__ = ["from_ncsn", "ncsn_states"]

_NORMS = ("embed.weight", "alpha", "gamma", "beta")


def ncsn_states(
    checkpoint: Any, *, where: str
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Returns the weights to sample with and the raw ones, both without `module.`.

    Checkpoints are lists: [weights, optimiser] in NCSN; [weights, optimiser, epoch, step, averaged
    weights] in NCSNv2, with the last entry only if it was trained with an average. A bare
    state_dict is accepted too.

    Raises:
        UserError: If the file is not such a list.
    """
    states = checkpoint if isinstance(checkpoint, list | tuple) else [checkpoint]
    if not states or not _is_state(states[0]):
        raise UserError(
            f"the file holds a {type(checkpoint).__name__}",
            where=where,
            expected="a checkpoint of NCSN or NCSNv2: a list that starts with a state_dict",
        )
    raw = _bare(states[0])
    averaged = len(states) > 4 and _is_state(states[-1])
    return (_bare(states[-1]) if averaged else raw), raw


def from_ncsn(net: RefineNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translates the authors' names; drops a stored list of levels (`sigmas`).

    Unknown tensors keep their names, so that `fill` reports them.
    """
    names = dict(_names(net))
    return {names.get(key, key): value for key, value in state.items() if key != "sigmas"}


def _is_state(checkpoint: Any) -> bool:
    return (
        isinstance(checkpoint, Mapping)
        and bool(checkpoint)
        and all(isinstance(value, Tensor) for value in checkpoint.values())
    )


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("module."): value for key, value in state.items()}


def _names(net: RefineNet) -> Iterator[tuple[str, str]]:
    """Yields pairs of the authors' name and ours."""
    parameters = set(net.state_dict())
    for theirs, ours in _places(net):
        for part in ("weight", "bias", *_NORMS):
            if f"{ours}.{part}" in parameters:
                yield f"{theirs}.{part}", f"{ours}.{part}"


def _places(net: RefineNet) -> Iterator[tuple[str, str]]:
    yield from (("begin_conv", "begin"), ("normalizer", "norm"), ("end_conv", "end"))
    for name, blocks in net.down.items():
        assert isinstance(blocks, nn.ModuleList)
        for i, block in enumerate(blocks):
            theirs, ours = f"res{name}.{i}", f"down.{name}.{i}"
            for k in (1, 2):
                yield f"{theirs}.normalize{k}", f"{ours}.norm{k}"
            for part in ("conv1", "conv2", "shortcut"):
                inner = ".conv" if isinstance(getattr(block, part), _MeanPooled) else ""
                yield f"{theirs}.{part}{inner}", f"{ours}.{part}"
    for ours, layer in net.refine.named_modules():
        yield from _refine_places(f"refine.{ours}", _theirs(ours), layer)


def _theirs(ours: str) -> str:
    stage, _, rest = ours.partition(".")
    head, _, tail = rest.partition(".")
    known = {"adapt": "adapt_convs", "fuse": "msf", "pool": "crp", "out": "output_convs"}
    return ".".join(p for p in (f"refine{stage}", known.get(head, head), tail) if p)


def _refine_places(ours: str, theirs: str, layer: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(layer, _Units):
        for i in range(len(layer.convs)):
            unit = f"{theirs}.{i // 2 + 1}_{i % 2 + 1}"
            yield f"{unit}_conv", f"{ours}.convs.{i}"
            yield f"{unit}_norm", f"{ours}.norms.{i}"
    elif isinstance(layer, _Fuse | _ChainedPool):
        for i in range(len(layer.convs)):
            for part in ("convs", "norms"):
                yield f"{theirs}.{part}.{i}", f"{ours}.{part}.{i}"
