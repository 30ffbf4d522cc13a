"""Cold diffusion (Bansal et al. 2022, https://arxiv.org/abs/2208.09392), step-by-step restoration.

Reads the authors' `model.pt` files and networks trained here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cmbench.api import (
    Classes,
    ColdStates,
    Degradation,
    ImageShape,
    Model,
    NetworkRestorer,
    UserError,
    Width,
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
    """A raw network that inverts a degradation."""

    makes: ClassVar[frozenset[str]] = frozenset({"restorer"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "cold_algorithm2", "noise_level": 0.002}

    transport: ClassVar[frozenset[str]] = frozenset({"process"})

    network: dict[str, Any]
    degradation: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    starts: Literal["gmm", "degradation"] = "gmm"
    components: Width = Field(default=1, description="components of the start's mixture")
    time: Literal["index", "unit"] = "index"
    residual: bool = False
    start_mean: tuple[float, ...] | None = Field(
        default=None, description="mean of the training images' mean colours, for official files"
    )
    start_covariance: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="covariance of the training images' mean colours"
    )
    process: Literal["checked", "ignored"] = Field(
        default="checked",
        description="compare an official file's blur and constants with `degradation`, or ignore",
    )

    @model_validator(mode="after")
    def _whole_start(self) -> Self:
        start, channels = (self.start_mean, self.start_covariance), self.shape[0]
        if None in start and start != (None, None):
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
        """Builds from the name and arguments of the authors' network; `more` are other fields.

        Raises:
            UserError: If the network or an argument is not supported.
        """
        if network not in _NETWORKS:
            raise UserError(
                f"cold diffusion's network '{network}' is not supported",
                expected=" or ".join(_NETWORKS),
            )
        fields = {k: v for k, v in arguments.items() if k not in _OF_SHAPE and v is not None}
        if arguments.get("output_mean_scale"):
            raise UserError("cold diffusion's 'output_mean_scale' is not supported")
        if _NETWORKS[network] == "cold_model2" and not fields.pop("with_time_emb", True):
            raise UserError(f"cold diffusion's {network} without the severity is not supported")
        more = {"starts": "degradation", "residual": fields.pop("residual", False), **more}
        spec = create("network", {"name": _NETWORKS[network], **fields}).spec()
        return cls(network=spec, shape=shape, degradation=dict(degradation), **more)

    def build(self) -> nn.Module:
        """Builds a NetworkRestorer over the raw network, `net`."""
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
            UserError: If the file is broken or holds anything but data, if its architecture or
                degradation differs from this configuration, or if it has no start.
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
                "the official file does not contain the colours from which generation starts",
                where=where,
                expected="start_mean and start_covariance of the training images' mean colours",
                fix="write them into a card of your own: docs/families-cold.md",
            )
        mean = torch.tensor([self.start_mean], dtype=torch.float64)
        covariance = torch.tensor([self.start_covariance], dtype=torch.float64)
        try:
            restorer.set_start(torch.ones(1), mean, covariance)
        except torch.linalg.LinAlgError:
            raise UserError(
                f"start_covariance {self.start_covariance} is not a covariance"
            ) from None


def _compare(degradation: Degradation, states: ColdStates, where: str) -> None:
    """Refuses a file whose blur or noise differs from the configuration's."""
    difference = ""
    if states.kernels:
        difference = _other_blur(degradation, states.kernels)
    elif isinstance(degradation, _Blurs):
        difference = "holds no blur kernels"
    signal = states.process.get("alphas_cumprod")
    if signal is not None and not difference:
        difference = _other_mixing(degradation, signal)
    if difference:
        raise UserError(
            f"the file {difference}: it was trained on another degradation than "
            f"{degradation.spec()}",
            where=where,
            expected="the degradation of the file's training",
            fix="name that degradation, or set `process: ignored` to use another one",
        )


def _other_blur(degradation: Degradation, kernels: list[Tensor]) -> str:
    if not isinstance(degradation, _Blurs):
        return f"holds {len(kernels)} blur kernels"
    if len(kernels) != degradation.levels:
        return f"blurs in {len(kernels)} steps"
    for step, kernel in enumerate(kernels):
        side = degradation.kernel(step)
        expected, stored = torch.outer(side, side), kernel[0, 0].double()
        if (
            stored.shape != expected.shape
            or (stored - expected).abs().max() > 1e-3 * expected.max()
        ):
            return f"blurs with another kernel at step {step}"
    return ""


def _other_mixing(degradation: Degradation, signal: Tensor) -> str:
    if not isinstance(degradation, _Mixes):
        return "mixes in noise or another image"
    if len(signal) != degradation.levels:
        return f"mixes in {len(signal)} steps"
    expected = degradation.signal(torch.arange(1, degradation.levels + 1)).flatten()
    return (
        "" if torch.allclose(signal.double(), expected, atol=1e-5) else "mixes on another schedule"
    )
