"""ADM (Dhariwal and Nichol, https://arxiv.org/abs/2105.05233) in EDM's form.

EDM (https://arxiv.org/abs/2206.00364), appendix F.1. The fields have EDM's names. Heads are
channels // 64, so that a level of fewer than 64 channels has no attention.
"""

from pydantic import Field
from torch import nn

from cmbench.core.bounds import Depth, Width, Widths
from cmbench.nets._unet import UNet, UNetPlan
from cmbench.nets._unet_blocks import BlockStyle, NoiseEmbedding
from cmbench.nets.base import Network

__all__ = ["ADMUNet"]

_HEAD = 64


class ADMUNet(Network):
    """ADM: attention after every block at `attn_resolutions`; the embedding scales and shifts."""

    model_channels: Width = Field(default=192, description="base width, scaled by multipliers")
    channel_mult: Widths = Field(default=(1, 2, 3, 4), min_length=1)
    channel_mult_emb: Width = 4
    num_blocks: Depth = 3
    attn_resolutions: Widths = (32, 16, 8)
    dropout: float = Field(default=0.10, ge=0, lt=1)
    augment_dim: int = Field(
        default=0, ge=0, le=16_384, description="number of augmentation labels in EDM's training"
    )
    outputs: Width | None = Field(default=None, description="output channels; none: the image's")

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network for square images (C, H, H)."""
        width = self.model_channels * self.channel_mult_emb
        side = shape[1]
        attended = {i for i in range(len(self.channel_mult)) if side >> i in self.attn_resolutions}
        plan = UNetPlan(
            resolution=side,
            inputs=shape[0],
            outputs=self.outputs or shape[0],
            stem=self.model_channels,
            widths=tuple(self.model_channels * m for m in self.channel_mult),
            blocks=self.num_blocks,
            style=BlockStyle(embedding=width, dropout=self.dropout, least_group=4),
            embedding=lambda: NoiseEmbedding(
                self.model_channels, width, classes=classes, augments=self.augment_dim
            ),
            encoder_heads=lambda level, c: c // _HEAD if level in attended else 0,
            decoder_heads=lambda level, _, c: c // _HEAD if level in attended else 0,
            middle_heads=lambda c: c // _HEAD,
        )
        return UNet(plan)
