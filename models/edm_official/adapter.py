"""EDM's released networks (Karras et al. 2022, https://arxiv.org/abs/2206.00364).

The fields have the names of the official constructors' arguments, so that the arguments stored in
a pickle are a configuration: `EDMOfficial.of_file(path)`. Networks run in float32.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from cmbench.api import (
    Classes,
    Depth,
    EDMDenoiser,
    EDMFile,
    IDDPMDenoiser,
    Levels,
    Model,
    UserError,
    VEDenoiser,
    VPDenoiser,
    Width,
    Widths,
    create,
    fill,
    from_edm,
    load_weights,
    parsing,
    read_edm,
    read_safetensors,
)

__all__ = ["EDMOfficial"]

_NETWORKS = {"SongUNet": "song_unet", "DhariwalUNet": "adm_unet"}
_OF_NETWORK = (
    "model_channels",
    "channel_mult",
    "channel_mult_emb",
    "num_blocks",
    "attn_resolutions",
    "dropout",
    "augment_dim",
    "embedding_type",
    "channel_mult_noise",
    "encoder_type",
    "decoder_type",
    "resample_filter",
)
_OF_TRAINING = {"use_fp16", "dropout", "label_dropout", "init_args"}
"""Arguments without effect on the network's output here."""


class EDMOfficial(Model):
    """An official network and its wrapper; `None` keeps an argument's official default."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "heun", "steps": 18}

    precond: Literal["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"] = "EDMPrecond"
    img_resolution: Width
    img_channels: Width = 3
    label_dim: Classes = Field(default=0, description="number of class labels; 0: unconditional")
    model_type: Literal["SongUNet", "DhariwalUNet"] = "DhariwalUNet"
    model_channels: Width | None = None
    channel_mult: Widths | None = None
    channel_mult_emb: Width | None = None
    num_blocks: Depth | None = None
    attn_resolutions: Widths | None = None
    dropout: float | None = None
    label_dropout: float = Field(default=0.0, description="used in training only; no effect here")
    augment_dim: Classes | None = None
    embedding_type: Literal["positional", "fourier"] | None = None
    channel_mult_noise: Width | None = None
    encoder_type: Literal["standard", "skip", "residual"] | None = None
    decoder_type: Literal["standard", "skip"] | None = None
    resample_filter: tuple[float, ...] | None = None
    use_fp16: bool = Field(default=False, description="accepted without effect: float32 is used")
    sigma_min: float | None = Field(default=None, ge=0, description="EDMPrecond's, VEPrecond's")
    sigma_max: float | None = Field(default=None, gt=0, description="EDMPrecond's, VEPrecond's")
    sigma_data: float = Field(default=0.5, gt=0)
    beta_d: float = Field(default=19.9, description="VPPrecond's")
    beta_min: float = Field(default=0.1, description="VPPrecond's")
    M: Levels = Field(default=1000, description="steps of VPPrecond and iDDPMPrecond")
    epsilon_t: float = Field(default=1e-5, gt=0, description="VPPrecond's")
    C_1: float = Field(default=0.001, description="iDDPMPrecond's")
    C_2: float = Field(default=0.008, description="iDDPMPrecond's")
    sampling_min: float | None = Field(
        default=None, gt=0, description="none: the network's, at least 0.002"
    )
    sampling_max: float | None = Field(
        default=None, gt=0, description="none: the network's, at most 80"
    )

    @classmethod
    def of_file(cls, path: Path) -> "EDMOfficial":
        """Reads the configuration of an official pickle; no code of the file is run."""
        content = read_edm(path)
        with parsing(path, "an EDM pickle whose arguments are supported"):
            return cls.model_validate(_stated(content, str(path)))

    def build(self) -> nn.Module:
        """Builds a Denoiser over the raw network, `net`."""
        arguments = {k: getattr(self, k) for k in _OF_NETWORK if getattr(self, k) is not None}
        if self.precond == "iDDPMPrecond":
            arguments["outputs"] = 2 * self.img_channels
        if self.model_type == "DhariwalUNet":
            arguments = {k: v for k, v in arguments.items() if k in _ADM}
        shape = (self.img_channels, self.img_resolution, self.img_resolution)
        spec = {"name": _NETWORKS[self.model_type], **arguments}
        net = create("network", spec).build(shape, self.label_dim)
        return self._wrapped(net, shape).eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads an official pickle, its state_dict as safetensors, or cmbench's own safetensors.

        Raises:
            UserError: If the file is broken, names anything but data, or has another architecture
                than this configuration.
        """
        where = str(weights)
        if weights.suffix == ".safetensors":
            state = read_safetensors(weights)
            if not any(name.startswith("model.") for name in state):
                load_weights(module, weights)
                return
        else:
            content = read_edm(weights)
            with parsing(weights, "weights of this architecture"):
                self._compare(_stated(content, where), where)
            state = content.state
        with parsing(weights, "weights of this architecture"):
            inner = {
                k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")
            }
            fill(module.net, from_edm(module.net, inner, where=where), where=where)

    def _wrapped(self, net: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
        ends = {"sigma_min": self.sampling_min, "sigma_max": self.sampling_max}
        if self.precond == "VPPrecond":
            return VPDenoiser(
                net,
                shape,
                classes=self.label_dim,
                beta_d=self.beta_d,
                beta_min=self.beta_min,
                steps=self.M,
                least_t=self.epsilon_t,
                **ends,
            )
        if self.precond == "VEPrecond":
            known = (self.sigma_min or 0.02, self.sigma_max or 100.0)
            return VEDenoiser(net, shape, classes=self.label_dim, trained_range=known, **ends)
        if self.precond == "iDDPMPrecond":
            return IDDPMDenoiser(
                net,
                shape,
                classes=self.label_dim,
                c_1=self.C_1,
                c_2=self.C_2,
                steps=self.M,
                **ends,
            )
        return EDMDenoiser(
            net,
            shape,
            classes=self.label_dim,
            sigma_data=self.sigma_data,
            sigma_min=self.sampling_min or max(0.002, self.sigma_min or 0.0),
            sigma_max=self.sampling_max or min(80.0, self.sigma_max or 80.0),
        )

    def _compare(self, stated: dict[str, Any], where: str) -> None:
        """Refuses a file whose stored arguments differ from this configuration."""
        other = type(self).model_validate(stated)
        for key in stated:
            ours, theirs = getattr(self, key), getattr(other, key)
            if ours is not None and ours != theirs and key not in _OF_TRAINING:
                raise UserError(
                    f"the file's network has {key} {theirs}, the configuration {ours}",
                    where=where,
                    expected="the card of this file, or another file",
                )


_ADM = {
    "model_channels",
    "channel_mult",
    "channel_mult_emb",
    "num_blocks",
    "attn_resolutions",
    "dropout",
    "augment_dim",
    "outputs",
}


def _stated(content: EDMFile, where: str) -> dict[str, Any]:
    """Returns the constructor's arguments in a file as fields.

    Raises:
        UserError: If the file's class or one of its arguments is not supported.
    """
    fields = {"precond": content.class_name, **content.arguments}
    if content.network:
        fields["model_type"] = content.network
    allowed = set(EDMOfficial.model_fields)
    unknown = [key for key in fields if key not in allowed]
    if unknown or content.class_name not in (
        "EDMPrecond",
        "VPPrecond",
        "VEPrecond",
        "iDDPMPrecond",
    ):
        what = f"argument '{unknown[0]}'" if unknown else f"class '{content.class_name}'"
        raise UserError(
            f"the {what} of the file's network is not supported",
            where=where,
            expected="a network of NVlabs/edm: EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond",
        )
    return {k: v for k, v in fields.items() if v not in (float("inf"), None)}
