"""Consistency models on Hugging Face's hub (Song et al. 2023, https://arxiv.org/abs/2303.01469).

Pipelines of diffusers: a UNet2DModel with CMStochasticIterativeScheduler's boundary conditions and
time input 250 ln(sigma). They are the networks of OpenAI's files, in another layout.
"""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from cmbench.api import (
    Classes,
    DDPMUNet,
    ImageShape,
    Model,
    OpenAIConsistency,
    UserError,
    create,
    fill,
    find_diffusers,
    from_ddpm,
    load_weights,
    parsing,
    read_diffusers_weights,
)

__all__ = ["ConsistencyHub"]


class ConsistencyHub(Model):
    """A pipeline; its files give the fields, whose defaults are the ImageNet-64 network's."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "onestep"}

    network: dict[str, Any] = Field(default_factory=lambda: dict(_IMAGENET64))
    shape: ImageShape = (3, 64, 64)
    classes: Classes = 1000
    sigma_data: float = Field(default=0.5, gt=0)
    sigma_min: float = Field(default=0.002, gt=0)
    sigma_max: float = Field(default=80.0, gt=0)

    @classmethod
    def opened(cls, given: Path) -> tuple[Path, dict[str, Any]]:
        """Returns a pipeline's weights and configuration; a single file has no configuration.

        Raises:
            UserError: If it is not a consistency model, or its network is not supported.
            Pending: If a hub name is not in the cache.
        """
        if given.is_file() and not (given.parent / "config.json").is_file():
            return given, {}
        folder = find_diffusers(given)
        where, scheduler = str(folder.weights.parent), folder.scheduler
        if scheduler.get("_class_name") != "CMStochasticIterativeScheduler":
            raise UserError(
                f"a pipeline with {scheduler.get('_class_name')} is not a consistency model",
                where=where,
                expected="CMStochasticIterativeScheduler",
                fix="for a DDPM pipeline use model ddpm/...",
            )
        with parsing(folder.weights.parent, "a diffusers pipeline"):
            side = folder.unet.get("sample_size")
            ends = {key: scheduler[key] for key in _ENDS if key in scheduler}
            return folder.weights, {
                "network": DDPMUNet.of_config(folder.unet, where=where).spec(),
                "shape": (folder.unet.get("in_channels", 3), side, side),
                "classes": folder.unet.get("num_class_embeds") or 0,
                **ends,
            }

    def build(self) -> nn.Module:
        """Builds an OpenAIConsistency over the raw network, `net`."""
        return OpenAIConsistency(
            create("network", self.network).build(self.shape, self.classes),
            self.shape,
            classes=self.classes,
            sigma_data=self.sigma_data,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        ).eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads diffusers' files, or cmbench's own safetensors.

        Raises:
            UserError: If the file is broken, holds anything but data, or has another architecture
                than this configuration.
        """
        state = read_diffusers_weights(weights)
        if any(name.startswith("net.") for name in state):
            load_weights(module, weights)
            return
        net: Any = module.net
        with parsing(weights, "weights of this architecture"):
            fill(net, from_ddpm(net, state), where=str(weights))


_ENDS = ("sigma_data", "sigma_min", "sigma_max")
_IMAGENET64 = {
    "name": "ddpm_unet",
    "block_out_channels": (192, 384, 576, 768),
    "layers_per_block": 3,
    "down_block_types": ("ResnetDownsampleBlock2D", *["AttnDownBlock2D"] * 3),
    "up_block_types": (*["AttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
    "attention_head_dim": 64,
    "norm_eps": 1e-5,
    "downsample_padding": 1,
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
}
