"""Cold diffusion (Bansal et al. 2022, https://arxiv.org/abs/2208.09392): restore, step by step.

Networks of the authors' `model.pt` files are read as well as those trained here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cmbench.api import (
    ColdStates,
    Degradation,
    Model,
    NetworkRestorer,
    UserError,
    cold_states,
    create,
    fill,
    from_cold,
    load_weights,
    parsing,
    read_torch,
)

__all__ = ["Cold"]

_NETWORKS = {
    "Unet": "cold_unet",
    "UnetConvNextBlock": "cold_unet",
    "Model": "cold_model2",
    "UnetResNetBlock": "cold_model2",
}
_OF_SHAPE = ("channels", "in_channels", "resolution", "output_mean_scale")


@runtime_checkable
class _Blurs(Protocol):
    levels: int

    def kernel(self, step: int) -> Tensor: ...


@runtime_checkable
class _Mixes(Protocol):
    levels: int

    def signal(self, severity: Tensor) -> Tensor: ...


class Cold(Model):
    """A raw network that restores what a degradation took away."""

    makes: ClassVar[frozenset[str]] = frozenset({"restorer"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "cold_algorithm2", "noise_level": 0.002}

    transport: ClassVar[frozenset[str]] = frozenset({"process"})

    network: dict[str, Any]
    degradation: dict[str, Any]
    shape: tuple[int, int, int]
    classes: int = 0
    starts: Literal["gmm", "degradation"] = "gmm"
    components: int = Field(default=1, ge=1, description="of the start's mixture")
    time: Literal["index", "unit"] = "index"
    residual: bool = False
    start_mean: tuple[float, ...] | None = Field(
        default=None, description="mean colour of the training images, for official files"
    )
    start_covariance: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="of the training images' mean colours"
    )
    process: Literal["checked", "ignored"] = Field(
        default="checked",
        description="an official file's blur and constants against those of `degradation`",
    )

    @model_validator(mode="after")
    def _whole_start(self) -> Self:
        given, channels = (self.start_mean, self.start_covariance), self.shape[0]
        if None in given and given != (None, None):
            raise ValueError("give start_mean and start_covariance, or neither")
        if self.start_mean is not None and self.start_covariance is not None:
            sizes = {len(self.start_mean), len(self.start_covariance)}
            if sizes | {len(row) for row in self.start_covariance} != {channels}:
                raise ValueError(f"start_mean and start_covariance need {channels} channels")
        return self

    @classmethod
    def of_official(
        cls,
        network: str,
        arguments: Mapping[str, Any],
        *,
        shape: tuple[int, int, int],
        degradation: Mapping[str, Any],
        **more: Any,
    ) -> "Cold":
        """From the name and arguments of the authors' network; `more` are fields of this class.

        Raises:
            UserError: For a network or an argument that is not known here.
        """
        if network not in _NETWORKS:
            raise UserError(
                f"cold diffusion's network '{network}' is not known here",
                expected=" or ".join(_NETWORKS),
            )
        told = {k: v for k, v in arguments.items() if k not in _OF_SHAPE and v is not None}
        if arguments.get("output_mean_scale"):
            raise UserError("cold diffusion's 'output_mean_scale' is not built here")
        if _NETWORKS[network] == "cold_model2" and not told.pop("with_time_emb", True):
            raise UserError(f"cold diffusion's {network} without the severity is not built here")
        more = {"starts": "degradation", "residual": told.pop("residual", False), **more}
        spec = create("network", {"name": _NETWORKS[network], **told}).spec()
        return cls(network=spec, shape=shape, degradation=dict(degradation), **more)

    def build(self) -> nn.Module:
        """A NetworkRestorer over the raw network, `net`."""
        degradation: Degradation = create("degradation", self.degradation)
        restorer = NetworkRestorer(
            create("network", self.network).build(self.shape, self.classes),
            self.shape,
            degradation,
            classes=self.classes,
            starts=self.starts,
            components=self.components,
            time=self.time,
            residual=self.residual,
        )
        return restorer.eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads an official `model.pt` (its averaged weights), or cmbench's own safetensors.

        Raises:
            UserError: If the file is broken, holds anything but data, is of another architecture
                or of another degradation than this configuration, or has no start to draw from.
        """
        if weights.suffix == ".safetensors":
            load_weights(module, weights)
            return
        where, restorer = str(weights), module
        with parsing(weights, "weights of this architecture"):
            states = cold_states(read_torch(weights), where=where)
            fill(restorer.net, from_cold(restorer.net, states.network), where=where)
        if self.process == "checked":
            _compare(create("degradation", self.degradation), states, where)
        if self.starts == "gmm":
            self._set_start(restorer, where)

    def _set_start(self, restorer: Any, where: str) -> None:
        if self.start_mean is None or self.start_covariance is None:
            raise UserError(
                "the official file doesn't say from which colours generation starts",
                where=where,
                expected="start_mean and start_covariance of the training images' mean colours",
                fix="write them into a card of your own: docs/families-cold.md",
            )
        mean = torch.tensor([self.start_mean], dtype=torch.float64)
        covariance = torch.tensor([self.start_covariance], dtype=torch.float64)
        try:
            restorer.set_start(torch.ones(1), mean, covariance)
        except torch.linalg.LinAlgError:
            raise UserError(f"start_covariance {self.start_covariance} is no covariance") from None


def _compare(degradation: Degradation, states: ColdStates, where: str) -> None:
    """Refuses a file whose own blur or noise is not the configuration's."""
    said = ""
    if states.kernels:
        said = _other_blur(degradation, states.kernels)
    elif isinstance(degradation, _Blurs):
        said = "holds no blur kernels"
    signal = states.process.get("alphas_cumprod")
    if signal is not None and not said:
        said = _other_mixing(degradation, signal)
    if said:
        raise UserError(
            f"the file {said}: it was trained to undo another degradation than "
            f"{degradation.spec()}",
            where=where,
            expected="the degradation of the file's training",
            fix="name it, or `process: ignored` to undo another than it was trained for",
        )


def _other_blur(degradation: Degradation, kernels: list[Tensor]) -> str:
    if not isinstance(degradation, _Blurs):
        return f"holds {len(kernels)} blur kernels"
    if len(kernels) != degradation.levels:
        return f"blurs in {len(kernels)} steps"
    for step, kernel in enumerate(kernels):
        side = degradation.kernel(step)
        wanted, found = torch.outer(side, side), kernel[0, 0].double()
        if found.shape != wanted.shape or (found - wanted).abs().max() > 1e-3 * wanted.max():
            return f"blurs with another kernel at step {step}"
    return ""


def _other_mixing(degradation: Degradation, signal: Tensor) -> str:
    if not isinstance(degradation, _Mixes):
        return "mixes in noise or another image"
    if len(signal) != degradation.levels:
        return f"mixes in {len(signal)} steps"
    wanted = degradation.signal(torch.arange(1, degradation.levels + 1)).flatten()
    return (
        "" if torch.allclose(signal.double(), wanted, atol=1e-5) else "mixes on another schedule"
    )
