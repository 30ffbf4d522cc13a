"""Cold diffusion's network for CIFAR-10: DDPM's U-Net as in the authors' `Model` (Model2.py).

Cold Diffusion (https://arxiv.org/abs/2208.09392) with the network of DDPM
(https://arxiv.org/abs/2006.11239, appendix B): group norm with epsilon 1e-6, one head of attention
after every block at the sides of `attn_resolutions`, strided convolutions padded only after the
last row and column.
"""

from typing import Self

from pydantic import Field, model_validator
from torch import nn

from cmbench.core.bounds import Width, Widths
from cmbench.core.errors import UserError
from cmbench.nets._unet import UNet, UNetPlan
from cmbench.nets._unet_blocks import BlockStyle, NoiseEmbedding
from cmbench.nets.base import Network

__all__ = ["ColdModel2"]

_GROUPS = 32


class ColdModel2(Network):
    """35.7 million parameters by default; the fields are the arguments of the authors' `Model`."""

    ch: Width = Field(default=128, description="channels of the first convolution")
    ch_mult: Widths = Field(default=(1, 2, 2, 2), min_length=1)
    num_res_blocks: int = Field(
        default=2, ge=1, le=256, description="blocks per level of the encoder"
    )
    attn_resolutions: Widths = Field(default=(16,), description="sides with attention")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    resamp_with_conv: bool = Field(default=True, description="false: average and repeat")
    out_ch: Width | None = Field(default=None, description="output channels; none: the image's")

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        widths = [self.ch, *(self.ch * m for m in self.ch_mult)]
        if any(width % _GROUPS for width in widths):
            raise ValueError(f"widths {widths} must be multiples of {_GROUPS} groups")
        return self

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network: forward(x (B, C, H, H), c_noise (B,), labels) -> (B, C', H, H).

        Raises:
            UserError: If the images aren't square or can't be halved once per level, or there are
                classes.
        """
        fold = 2 ** (len(self.ch_mult) - 1)
        if shape[1] != shape[2] or shape[1] % fold:
            raise UserError(
                f"cold_model2: images of {shape[1]}x{shape[2]} can't be halved once per level",
                expected=f"square images with a side divisible by {fold}",
            )
        if classes:
            raise UserError("the released cold-diffusion networks take no class labels")
        return UNet(self._plan(shape))

    def _plan(self, shape: tuple[int, int, int]) -> UNetPlan:
        width = 4 * self.ch
        attended = [shape[1] >> i in self.attn_resolutions for i in range(len(self.ch_mult))]
        return UNetPlan(
            resolution=shape[1],
            inputs=shape[0],
            outputs=self.out_ch or shape[0],
            stem=self.ch,
            widths=tuple(self.ch * m for m in self.ch_mult),
            blocks=self.num_res_blocks,
            style=BlockStyle(width, self.dropout, eps=1e-6, scale_shift=False, groups=_GROUPS),
            embedding=lambda: NoiseEmbedding(self.ch, width, endpoint=True, sine_first=True),
            encoder_heads=lambda level, _: int(attended[level]),
            decoder_heads=lambda level, _, __: int(attended[level]),
            middle_heads=lambda _: 1,
            resampling="conv" if self.resamp_with_conv else "plain",
            down_padding=0,
        )
