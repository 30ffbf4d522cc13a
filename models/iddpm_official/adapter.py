"""Improved DDPM's released networks (Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672).

They are discrete VP processes in sigma-space. The network predicts the noise and, in further
channels, a variance between beta~ and beta. Files are bare state_dicts of the averaged weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from cmbench.api import (
    Classes,
    Depth,
    DiscreteVPDenoiser,
    Model,
    UserError,
    Width,
    Widths,
    create,
    fill,
    from_openai,
    load_weights,
    noise_schedule,
    parsing,
    read_state_dict,
)

__all__ = ["IDDPMOfficial"]


class IDDPMOfficial(Model):
    """An official network; its fields have the names of improved-diffusion's flags."""

    makes: ClassVar[frozenset[str]] = frozenset({"denoiser", "discrete"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "iddpm_ancestral"}

    image_size: Width
    in_channels: Width = 3
    model_channels: Width = 128
    num_res_blocks: Depth = 2
    attention_resolutions: Widths = Field(
        default=(2, 4), description="downsampling factors, not sides"
    )
    channel_mult: tuple[float, ...] = (1, 2, 2, 2)
    num_classes: Classes | None = Field(
        default=None, description="number of class labels; none: unconditional"
    )
    num_heads: Width = 4
    num_heads_upsample: int = Field(default=-1, ge=-1, le=16_384)
    use_scale_shift_norm: bool = True
    conv_resample: bool = True
    dropout: float = Field(default=0.0, ge=0, lt=1)
    steps: int = Field(default=4000, ge=2, le=100_000, description="T, number of diffusion steps")
    noise_schedule: Literal["linear", "cosine"] = "cosine"
    learn_sigma: bool = True
    predict_xstart: bool = False
    rescale_timesteps: bool = True
    sigma_min: float | None = Field(
        default=None, gt=0, description="none: the process's least level"
    )
    sigma_max: float | None = Field(
        default=None, gt=0, description="none: the process's, at most 80"
    )

    @classmethod
    def of_unet(
        cls, constructor: Mapping[str, Any], side: int, diffusion: Mapping[str, Any] | None = None
    ) -> "IDDPMOfficial":
        """Builds from the arguments of the official UNetModel and of its diffusion process.

        Raises:
            UserError: If an argument is not supported.
        """
        fields = {**constructor, **(diffusion or {}), "image_size": side}
        fields.setdefault(
            "learn_sigma", fields.get("out_channels") == 2 * fields.get("in_channels", 3)
        )
        fields.pop("out_channels", None)
        for key in ("use_checkpoint", "dims", "sigma_small", "use_kl", "rescale_learned_sigmas"):
            fields.pop(key, None)
        unknown = [key for key in fields if key not in cls.model_fields]
        if unknown:
            raise UserError(f"improved-diffusion's argument '{unknown[0]}' is not supported")
        return cls(**fields)

    def build(self) -> nn.Module:
        """Builds a DiscreteVPDenoiser over the raw network, `net`."""
        shape = (self.in_channels, self.image_size, self.image_size)
        spec = {
            "name": "openai_unet",
            "model_channels": self.model_channels,
            "channel_mult": self.channel_mult,
            "num_res_blocks": self.num_res_blocks,
            "attention_resolutions": self.attention_resolutions,
            "dropout": self.dropout,
            "num_heads": self.num_heads,
            "num_heads_upsample": self.num_heads_upsample,
            "use_scale_shift_norm": self.use_scale_shift_norm,
            "conv_resample": self.conv_resample,
            "outputs": self.in_channels * (2 if self.learn_sigma else 1),
        }
        classes = self.num_classes or 0
        return DiscreteVPDenoiser(
            create("network", spec).build(shape, classes),
            shape,
            noise_schedule(self.noise_schedule, self.steps),
            classes=classes,
            time_scale=1000 / self.steps if self.rescale_timesteps else 1.0,
            predicts_x0=self.predict_xstart,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        ).eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads the authors' state_dict, or cmbench's own safetensors.

        Raises:
            UserError: If the file is broken, holds anything but data, or has another architecture
                than this configuration.
        """
        where = str(weights)
        if weights.suffix == ".safetensors":
            load_weights(module, weights)
            return
        state = read_state_dict(weights)
        order = "heads-three-width"
        with parsing(weights, "weights of this architecture"):
            fill(module.net, from_openai(module.net, state, order=order), where=where)
