"""OpenAI's UNetModel: improved-diffusion, guided-diffusion and consistency_models.

iDDPM (https://arxiv.org/abs/2102.09672), ADM (https://arxiv.org/abs/2105.05233), Consistency
Models (https://arxiv.org/abs/2303.01469). The network equals ADM in EDM's form except for the
number of groups, which is always 32, and optional plain resampling. The fields have OpenAI's
names; `attention_resolutions` are downsampling factors, as in its constructor.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from cmbench.core.bounds import Depth, Width, Widths
from cmbench.core.errors import UserError
from cmbench.nets._unet import UNet, UNetPlan
from cmbench.nets._unet_blocks import BlockStyle, NoiseEmbedding
from cmbench.nets.base import Network

__all__ = ["OpenAIUNet"]


class OpenAIUNet(Network):
    """OpenAI's network; its time input is 250 ln(sigma), or the step scaled to 0..1000."""

    model_channels: Width = Field(default=192, description="base width, scaled by multipliers")
    channel_mult: tuple[Annotated[float, Field(gt=0, le=1024)], ...] = Field(
        default=(1, 2, 3, 4), min_length=1
    )
    num_res_blocks: Depth = 3
    attention_resolutions: Widths = Field(
        default=(2, 4, 8), description="downsampling factors, not sides"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)
    num_heads: Width = Field(default=1, description="heads, if num_head_channels is -1")
    num_heads_upsample: int = Field(
        default=-1, ge=-1, le=16_384, description="heads in the decoder; -1: num_heads"
    )
    num_head_channels: int = Field(
        default=-1, ge=-1, le=16_384, description="channels of a head; -1: num_heads"
    )
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    conv_resample: bool = True
    outputs: Width | None = Field(default=None, description="output channels; none: the image's")

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network for square images (C, H, H).

        Raises:
            UserError: If a width is not a multiple of 32, the number of groups.
        """
        widths = tuple(int(self.model_channels * m) for m in self.channel_mult)
        if any(width % 32 for width in widths):
            raise UserError(
                f"openai_unet: widths {widths} are not all multiples of 32",
                expected="model_channels * channel_mult divisible by 32, the number of groups",
            )
        width = 4 * self.model_channels
        plan = UNetPlan(
            resolution=shape[1],
            inputs=shape[0],
            outputs=self.outputs or shape[0],
            stem=widths[0],
            widths=widths,
            blocks=self.num_res_blocks,
            style=BlockStyle(width, self.dropout, scale_shift=self.use_scale_shift_norm),
            embedding=lambda: NoiseEmbedding(self.model_channels, width, classes=classes),
            encoder_heads=lambda level, c: self._heads(level, c, self.num_heads),
            decoder_heads=lambda level, _, c: self._heads(level, c, self._heads_up()),
            middle_heads=lambda c: self._heads(None, c, self.num_heads),
            resampling=self._resampling(),
        )
        return UNet(plan)

    def _heads(self, level: int | None, channels: int, count: int) -> int:
        if level is not None and 2**level not in self.attention_resolutions:
            return 0
        return count if self.num_head_channels == -1 else channels // self.num_head_channels

    def _heads_up(self) -> int:
        return self.num_heads if self.num_heads_upsample == -1 else self.num_heads_upsample

    def _resampling(self) -> Literal["block", "conv", "plain"]:
        if self.resblock_updown:
            return "block"
        return "conv" if self.conv_resample else "plain"
