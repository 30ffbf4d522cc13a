"""DDPM++ and NCSN++ (Song et al., https://arxiv.org/abs/2011.13456) in EDM's implementation.

EDM (https://arxiv.org/abs/2206.00364), Table 7: DDPM++ has positional embeddings, 2x2 averages
and a standard encoder; NCSN++ has Fourier features twice as wide, the filter (1, 3, 3, 1) and a
residual encoder. The fields have EDM's names, so that arguments in its files need no translation.
"""

import math
from typing import Literal

from pydantic import Field
from torch import nn

from cmbench.core.bounds import Depth, Width, Widths
from cmbench.nets._unet import UNet, UNetPlan
from cmbench.nets._unet_blocks import BlockStyle, NoiseEmbedding
from cmbench.nets.base import Network

__all__ = ["SongUNet"]


class SongUNet(Network):
    """EDM's U-Net: one head of attention in encoder blocks and a level's last decoder block."""

    model_channels: Width = Field(default=128, description="base width, scaled by multipliers")
    channel_mult: Widths = Field(default=(1, 2, 2, 2), min_length=1)
    channel_mult_emb: Width = 4
    channel_mult_noise: Width = 1
    num_blocks: Depth = 4
    attn_resolutions: Widths = (16,)
    dropout: float = Field(default=0.10, ge=0, lt=1)
    augment_dim: int = Field(
        default=0, ge=0, le=16_384, description="number of augmentation labels in EDM's training"
    )
    embedding_type: Literal["positional", "fourier"] = "positional"
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: tuple[float, ...] = (1, 1)
    outputs: Width | None = Field(default=None, description="output channels; none: the image's")

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network for square images (C, H, H)."""
        return UNet(self.plan(shape, classes))

    def plan(self, shape: tuple[int, int, int], classes: int) -> UNetPlan:
        """Returns the plan of the network for images of `shape`."""
        width = self.model_channels * self.channel_mult_emb
        last, side = self.num_blocks, shape[1]
        attended = {i for i in range(len(self.channel_mult)) if side >> i in self.attn_resolutions}
        return UNetPlan(
            resolution=side,
            inputs=shape[0],
            outputs=self.outputs or shape[0],
            stem=self.model_channels,
            widths=tuple(self.model_channels * m for m in self.channel_mult),
            blocks=self.num_blocks,
            style=self._style(width),
            embedding=lambda: self._embedding(width, classes),
            encoder_heads=lambda level, _: int(level in attended),
            decoder_heads=lambda level, block, _: int(level in attended and block == last),
            middle_heads=lambda _: 1,
            encoder=self.encoder_type,
            decoder=self.decoder_type,
            xavier=True,
        )

    def _style(self, width: int) -> BlockStyle:
        return BlockStyle(
            embedding=width,
            dropout=self.dropout,
            skip_scale=math.sqrt(0.5),
            eps=1e-6,
            least_group=4,
            scale_shift=False,
            project_resampled=True,
            taps=self.resample_filter,
        )

    def _embedding(self, width: int, classes: int) -> NoiseEmbedding:
        return NoiseEmbedding(
            self.model_channels * self.channel_mult_noise,
            width,
            fourier=self.embedding_type == "fourier",
            endpoint=True,
            sine_first=True,
            classes=classes,
            augments=self.augment_dim,
            label_inside=True,
        )
