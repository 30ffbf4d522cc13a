"""OpenAI's released consistency models and their EDM teachers.

Consistency Models (Song et al. 2023, https://arxiv.org/abs/2303.01469): ImageNet-64 and LSUN-256
in torch (openai/consistency_models), CIFAR-10 in JAX (openai/consistency_models_cifar10). A file
does not state whether its network is a teacher or a consistency function; the card does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from cmbench.api import (
    Classes,
    ConsistencyFunction,
    EDMDenoiser,
    ImageShape,
    Model,
    OpenAIConsistency,
    OpenAIDenoiser,
    UserError,
    create,
    fill,
    from_flax,
    from_openai,
    load_weights,
    parsing,
    read_flax,
    read_state_dict,
)

__all__ = ["ConsistencyOfficial"]

_OPENAI = (
    "model_channels",
    "channel_mult",
    "num_res_blocks",
    "attention_resolutions",
    "dropout",
    "num_heads",
    "num_heads_upsample",
    "num_head_channels",
    "use_scale_shift_norm",
    "resblock_updown",
    "conv_resample",
)
_WITHOUT_EFFECT = ("use_new_attention_order", "use_fp16", "use_checkpoint", "dims")


class ConsistencyOfficial(Model):
    """An official network; `network` is openai_unet (torch files) or song_unet (JAX files)."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "onestep"}

    network: dict[str, Any]
    shape: ImageShape
    classes: Classes = 0
    scalings: Literal["consistency", "edm"] = Field(
        default="consistency",
        description="edm: a teacher, or a student of progressive distillation",
    )
    layout: Literal["torch", "flax"] = "torch"
    tree: Literal["params_ema", "params", "target_params"] = Field(
        default="params_ema", description="tree of a Flax file; the authors sample params_ema"
    )
    sigma_data: float = Field(default=0.5, gt=0)
    sigma_min: float = Field(default=0.002, gt=0)
    sigma_max: float = Field(default=80.0, gt=0)

    @classmethod
    def of_unet(cls, constructor: Mapping[str, Any], **more: Any) -> "ConsistencyOfficial":
        """Builds from the arguments of the official torch UNetModel; `more` are other fields.

        Raises:
            UserError: If an argument is not supported.
        """
        arguments = dict(constructor)
        side, inner = arguments.pop("image_size"), arguments.pop("in_channels", 3)
        outer, classes = arguments.pop("out_channels", inner), arguments.pop("num_classes", None)
        network = {"name": "openai_unet", "outputs": outer}
        for key, value in arguments.items():
            if key in _OPENAI:
                network[key] = value
            elif key not in _WITHOUT_EFFECT:
                raise UserError(f"UNetModel's argument '{key}' is not supported")
        more = {"scalings": "consistency", **more}
        return cls(network=network, shape=(inner, side, side), classes=classes or 0, **more)

    @classmethod
    def of_jcm(
        cls, model: Mapping[str, Any], side: int = 32, **more: Any
    ) -> "ConsistencyOfficial":
        """Builds from the `model` part of a consistency_models_cifar10 configuration.

        Raises:
            UserError: If an option is not supported, as no released network uses it.
        """
        pyramid = model.get("progressive_input", "residual")
        known = {"resblock_type": "biggan", "progressive": "none", "skip_rescale": True}
        odd = [k for k, v in known.items() if model.get(k, v) != v]
        if odd or pyramid not in ("residual", "none") or model.get("double_heads"):
            raise UserError(
                f"consistency_models_cifar10: option '{(odd or ['model'])[0]}' is not supported"
            )
        fourier = model.get("embedding_type", "fourier") == "fourier"
        network = {
            "name": "song_unet",
            "model_channels": model["nf"],
            "channel_mult": tuple(model["ch_mult"]),
            "num_blocks": model["num_res_blocks"],
            "attn_resolutions": tuple(model["attn_resolutions"]),
            "dropout": model.get("dropout", 0.0),
            "embedding_type": "fourier" if fourier else "positional",
            "channel_mult_noise": 2 if fourier else 1,
            "encoder_type": "residual" if pyramid == "residual" else "standard",
            "resample_filter": tuple(model["fir_kernel"]) if model.get("fir", True) else (1, 1),
        }
        ends = {"sigma_min": model.get("t_min", 0.002), "sigma_max": model.get("t_max", 80.0)}
        ends["sigma_data"] = model.get("data_std", 0.5)
        return cls(network=network, shape=(3, side, side), layout="flax", **{**ends, **more})

    def build(self) -> nn.Module:
        """Builds a ConsistencyFunction, or an EDMDenoiser for a teacher."""
        net = create("network", self.network).build(self.shape, self.classes)
        kinds: dict[tuple[bool, str], type[EDMDenoiser]] = {
            (True, "consistency"): OpenAIConsistency,
            (True, "edm"): OpenAIDenoiser,
            (False, "consistency"): ConsistencyFunction,
            (False, "edm"): EDMDenoiser,
        }
        kind = kinds[self.network["name"] == "openai_unet", self.scalings]
        return kind(
            net,
            self.shape,
            classes=self.classes,
            sigma_data=self.sigma_data,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        ).eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads the authors' file, or cmbench's own safetensors.

        Raises:
            UserError: If the file is broken, holds anything but data, or has another architecture
                than this configuration.
        """
        where = str(weights)
        if weights.suffix == ".safetensors":
            load_weights(module, weights)
        elif self.layout == "flax":
            tree = read_flax(weights, [self.tree])[self.tree]
            with parsing(weights, "weights of this architecture"):
                fill(module.net, from_flax(module.net, tree), where=where)
        else:
            state = read_state_dict(weights)
            order = "three-heads-width"
            with parsing(weights, "weights of this architecture"):
                fill(module.net, from_openai(module.net, state, order=order), where=where)
