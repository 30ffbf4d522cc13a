"""DDPM's U-Net (https://arxiv.org/abs/2006.11239, appendix B) with the options of diffusers.

The fields have the names of diffusers' UNet2DModel; the defaults are the published CIFAR-10
network's: group norm with epsilon 1e-6, sines before cosines, one head of attention after every
block of a level, strided convolutions padded after the last row and column. With scale and shift
by the embedding and resampling in residual blocks it is OpenAI's network (ADM), that of
diffusers' consistency models.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from cmbench.core.bounds import Width, Widths
from cmbench.core.errors import UserError
from cmbench.nets._unet import UNet, UNetPlan
from cmbench.nets._unet_blocks import BlockStyle, NoiseEmbedding
from cmbench.nets.base import Network

__all__ = ["DDPMUNet"]

DownBlock = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
UpBlock = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]
_PLAIN: DownBlock = "DownBlock2D"
_ATTENTIVE: DownBlock = "AttnDownBlock2D"


class DDPMUNet(Network):
    """35.7 million parameters by default, for 32x32 images with three channels."""

    block_out_channels: Widths = Field(default=(128, 256, 256, 256), min_length=1)
    layers_per_block: int = Field(
        default=2, ge=1, le=256, description="blocks per level of the encoder"
    )
    down_block_types: tuple[DownBlock, ...] = (_PLAIN, _ATTENTIVE, _PLAIN, _PLAIN)
    up_block_types: tuple[UpBlock, ...] = ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    attention_head_dim: Width | None = Field(default=None, description="none: one head")
    add_attention: bool = Field(default=True, description="attention in the middle block")
    norm_num_groups: Width = 32
    norm_eps: float = Field(default=1e-6, gt=0)
    downsample_padding: Literal[0, 1] = 0
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    freq_shift: Literal[0, 1] = 1
    flip_sin_to_cos: bool = False
    time_embedding_dim: Width | None = Field(
        default=None, description="none: 4 times the first width"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)
    outputs: Width | None = Field(default=None, description="output channels; none: the image's")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        levels = {len(self.block_out_channels), len(self.down_block_types)}
        if len(levels | {len(self.up_block_types)}) > 1:
            raise ValueError("block_out_channels and both lists of block types differ in length")
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            raise ValueError(f"widths must be multiples of {self.norm_num_groups} groups")
        if self.block_out_channels[0] % 2:
            raise ValueError("the first width must be even: it holds pairs of sine and cosine")
        if any(width % (self.attention_head_dim or 1) for width in self._attended()):
            raise ValueError(f"widths {self._attended()} don't divide into heads")
        if len(self._resampled()) > 1:
            raise ValueError("some levels resample by convolution, some in residual blocks")
        return self

    @classmethod
    def of_config(cls, config: Mapping[str, Any], *, where: str = "") -> "DDPMUNet":
        """Builds from diffusers' `config.json` of a UNet2DModel; missing keys have its defaults.

        Raises:
            UserError: If this network does not support a key or a value.
        """
        fields = {**_DEFAULTS, **{k: v for k, v in config.items() if not k.startswith("_")}}
        for key, wanted in _FIXED.items():
            if fields.pop(key, wanted[0]) not in wanted:
                raise UserError(
                    f"'{key}: {config[key]}' of diffusers is not supported",
                    where=where,
                    expected=" or ".join(map(str, wanted)),
                )
        middle = fields.pop("attn_norm_num_groups", None)
        shifted = fields["resnet_time_scale_shift"] != "default"
        if fields["add_attention"] and (middle or shifted) and middle != fields["norm_num_groups"]:
            raise UserError(
                f"'attn_norm_num_groups: {middle}' is not norm_num_groups", where=where
            )
        for key in ("sample_size", "in_channels", "num_class_embeds", "num_train_timesteps"):
            fields.pop(key, None)
        fields["outputs"] = fields.pop("out_channels", 3)
        unknown = [key for key in fields if key not in cls.model_fields]
        if unknown:
            raise UserError(f"'{unknown[0]}' of diffusers is not supported", where=where)
        try:
            return cls(**fields)
        except ValueError as error:
            raise UserError(f"not a supported network: {error}", where=where) from None

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network for square images (C, H, H).

        Raises:
            UserError: If the images can't be halved once per level.
        """
        fold = 2 ** (len(self.block_out_channels) - 1)
        if shape[1] != shape[2] or shape[1] % fold:
            raise UserError(
                f"ddpm_unet: images of {shape[1]}x{shape[2]} can't be halved once per level",
                expected=f"square images with a side divisible by {fold}",
            )
        return UNet(self._plan(shape, classes))

    def _plan(self, shape: tuple[int, int, int], classes: int) -> UNetPlan:
        width = self.time_embedding_dim or 4 * self.block_out_channels[0]
        down = [kind.startswith("Attn") for kind in self.down_block_types]
        up = [kind.startswith("Attn") for kind in reversed(self.up_block_types)]
        in_blocks = "resnet" in self._resampled()
        return UNetPlan(
            resolution=shape[1],
            inputs=shape[0],
            outputs=self.outputs or shape[0],
            stem=self.block_out_channels[0],
            widths=self.block_out_channels,
            blocks=self.layers_per_block,
            style=BlockStyle(
                width,
                self.dropout,
                eps=self.norm_eps,
                scale_shift=self.resnet_time_scale_shift == "scale_shift",
                groups=self.norm_num_groups,
            ),
            embedding=lambda: NoiseEmbedding(
                self.block_out_channels[0],
                width,
                endpoint=self.freq_shift == 1,
                sine_first=not self.flip_sin_to_cos,
                classes=classes,
            ),
            encoder_heads=lambda level, channels: self._heads(channels) if down[level] else 0,
            decoder_heads=lambda level, _, channels: self._heads(channels) if up[level] else 0,
            middle_heads=lambda channels: self._heads(channels) if self.add_attention else 0,
            resampling="block" if in_blocks else "conv",
            down_padding=self.downsample_padding,
        )

    def _heads(self, channels: int) -> int:
        return channels // (self.attention_head_dim or channels)

    def _attended(self) -> list[int]:
        """Returns the widths of the levels with attention."""
        ups = zip(reversed(self.up_block_types), self.block_out_channels, strict=True)
        downs = zip(self.down_block_types, self.block_out_channels, strict=True)
        widths = [width for kind, width in [*downs, *ups] if kind.startswith("Attn")]
        return widths + [self.block_out_channels[-1]] * self.add_attention

    def _resampled(self) -> set[str]:
        """Returns the kinds of resampling of the levels; the last level of a list has none."""
        kinds = set()
        ways: list[tuple[str, str]]
        ways = [(kind, self.downsample_type) for kind in self.down_block_types[:-1]]
        ways += [(kind, self.upsample_type) for kind in self.up_block_types[:-1]]
        for kind, attentive in ways:
            plain = "resnet" if kind.startswith("Resnet") else "conv"
            kinds.add(attentive if kind.startswith("Attn") else plain)
        return kinds


_DEFAULTS: dict[str, Any] = {
    "block_out_channels": (224, 448, 672, 896),
    "down_block_types": (_PLAIN, _ATTENTIVE, _ATTENTIVE, _ATTENTIVE),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "add_attention": True,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "downsample_padding": 1,
    "resnet_time_scale_shift": "default",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
}
"""Defaults of diffusers that differ from ours; none of them fits DDPM's weights."""

_FIXED: dict[str, tuple[Any, ...]] = {
    "time_embedding_type": ("positional",),
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1, None),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
}
