"""Score SDE (Song et al. 2021, https://arxiv.org/abs/2011.13456): NCSN++, DDPM++ and DDPM.

It covers the authors' PyTorch checkpoints of VE, VP and sub-VP processes, discrete or continuous,
and networks trained here in the same parametrisation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from cmbench.api import (
    SDE,
    VE,
    VP,
    Classes,
    ImageShape,
    Labels,
    Model,
    SDEDenoiser,
    SubVP,
    UserError,
    create,
    fill,
    from_score_sde,
    load_weights,
    parsing,
    read_torch,
    score_sde_states,
)

__all__ = ["ScoreSDE"]

Process = Literal["ve", "vp", "subvp"]


class ScoreSDE(Model):
    """A network and its process; the defaults are VP's for CIFAR-10."""

    sampler: ClassVar[dict[str, Any] | None] = {
        "name": "predictor_corrector",
        "predictor": "euler_maruyama",
        "corrector": "none",
    }

    network: dict[str, Any] = Field(default_factory=lambda: {"name": "score_sde_unet"})
    shape: ImageShape = (3, 32, 32)
    classes: Classes = 0
    sde: Process = "vp"
    continuous: bool = Field(
        default=True, description="trained at all times; false: at `steps` times"
    )
    steps: int = Field(
        default=1000, ge=2, le=100_000, description="num_scales of the discrete process"
    )
    beta_min: float = Field(default=0.1, gt=0)
    beta_max: float = Field(default=20.0, gt=0)
    sigma_min: float = Field(default=0.01, gt=0, description="VE's least level, authors' units")
    sigma_max: float = Field(default=50.0, gt=0, description="VE's greatest level, authors' units")
    centered: bool = Field(default=True, description="the process runs on images in [-1, 1]")
    scale_by_sigma: bool = Field(default=False, description="the output is divided by sigma")
    fourier: bool = Field(default=False, description="the network takes ln of its label")

    @classmethod
    def of_config(cls, config: Mapping[str, Any], sde: str | None = None) -> "ScoreSDE":
        """Builds from an official configuration, {"data": ..., "model": ..., "training": ...}.

        Args:
            config: The file's contents.
            sde: `vesde`, `vpsde` or `subvpsde`, overriding the configuration's.

        Raises:
            UserError: If an option is not supported.
        """
        data, model, training = config["data"], config["model"], config.get("training", {})
        name = (sde or training.get("sde", "vpsde")).removesuffix("sde")
        if name not in ("ve", "vp", "subvp"):
            raise UserError(f"process '{name}sde' is not supported", expected="vesde, vpsde, ...")
        plus = model["name"] == "ncsnpp"
        _known(model, plus=plus)
        fourier = plus and model.get("embedding_type", "positional") == "fourier"
        side = data["image_size"]
        return cls(
            network=_network(model, plus=plus),
            shape=(data.get("num_channels", 3), side, side),
            sde=name,
            continuous=training.get("continuous", True),
            steps=model.get("num_scales", 1000),
            beta_min=model.get("beta_min", 0.1),
            beta_max=model.get("beta_max", 20.0),
            sigma_min=model.get("sigma_min", 0.01),
            sigma_max=model.get("sigma_max", 50.0),
            centered=data.get("centered", False),
            scale_by_sigma=model.get("scale_by_sigma", False),
            fourier=fourier,
        )

    def build(self) -> nn.Module:
        """Builds an SDEDenoiser over the raw network, `net`."""
        labels = Labels(
            continuous=self.continuous,
            fourier=self.fourier,
            count=self.steps,
            ladder=(self.sigma_min, self.sigma_max),
            divides=self.scale_by_sigma,
        )
        return SDEDenoiser(
            create("network", self.network).build(self.shape, self.classes),
            self.shape,
            self._process(),
            labels,
            unit=1.0 if self.centered else 2.0,
            classes=self.classes,
        ).eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads an official checkpoint (its averaged weights), or cmbench's own safetensors.

        Raises:
            UserError: If the file is broken, holds anything but data, or has another architecture
                than this configuration.
        """
        if weights.suffix == ".safetensors":
            load_weights(module, weights)
            return
        where, net = str(weights), module.net
        with parsing(weights, "weights of this architecture"):
            used, _ = score_sde_states(net, read_torch(weights), where=where)  # type: ignore[arg-type]
            fill(net, from_score_sde(net, used), where=where)  # type: ignore[arg-type]

    def _process(self) -> SDE:
        if self.sde == "ve":
            return VE(self.sigma_min, self.sigma_max)
        kind = VP if self.sde == "vp" else SubVP
        return kind(self.beta_min, self.beta_max)


_KEPT = (
    "nf",
    "ch_mult",
    "num_res_blocks",
    "attn_resolutions",
    "dropout",
    "resamp_with_conv",
    "fir",
    "fir_kernel",
    "skip_rescale",
    "resblock_type",
    "progressive",
    "progressive_input",
    "embedding_type",
    "fourier_scale",
)


def _network(model: Mapping[str, Any], *, plus: bool) -> dict[str, Any]:
    fields = {key: model[key] for key in _KEPT if key in model}
    if not plus:
        shared = ("nf", "ch_mult", "num_res_blocks", "attn_resolutions", "dropout")
        fields = {key: model[key] for key in (*shared, "resamp_with_conv") if key in model}
    return {"name": "score_sde_unet", "family": model["name"], **fields}


def _known(model: Mapping[str, Any], *, plus: bool) -> None:
    """Refuses options of the authors' code that no published configuration uses."""
    if not plus and model["name"] != "ddpm":
        raise UserError(f"network '{model['name']}' is not supported", expected="ncsnpp or ddpm")
    checks = {
        "normalization": (model.get("normalization", "GroupNorm"), ("GroupNorm",)),
        "nonlinearity": (model.get("nonlinearity", "swish"), ("swish",)),
        "conditional": (model.get("conditional", True), (True,)),
        "attention_type": (model.get("attention_type", "ddpm"), ("ddpm",)),
        "progressive_combine": (model.get("progressive_combine", "sum"), ("sum",)),
        "conv_size": (model.get("conv_size", 3), (3,)),
    }
    for key, (value, known) in checks.items():
        if value not in known:
            raise UserError(
                f"'{key}: {value}' of the configuration is not supported",
                expected=" or ".join(map(str, known)),
            )
