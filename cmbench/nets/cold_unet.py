"""Cold diffusion's U-Net of ConvNeXt blocks: MNIST, CelebA, AFHQ, and all snow and colour models.

A level has two blocks (7x7 depthwise convolution, plus the time embedding, normalised over
channels, 3x3 to twice the width and back), linear attention, and a strided 4x4 convolution that
halves the sides. Cold Diffusion (Bansal et al. 2022, https://arxiv.org/abs/2208.09392), appendix;
block after ConvNeXt (https://arxiv.org/abs/2201.03545), attention after https://arxiv.org/abs/1812.01243.
"""

from typing import Self

from pydantic import Field, model_validator
from torch import nn

from cmbench.core.bounds import Width, Widths
from cmbench.core.errors import UserError
from cmbench.nets._cold_blocks import ColdNet
from cmbench.nets.base import Network

__all__ = ["ColdUNet"]


class ColdUNet(Network):
    """56.6 million parameters by default; the fields are the arguments of the authors' `Unet`."""

    dim: int = Field(default=64, ge=4, le=16_384, description="channels of the first level, even")
    dim_mults: Widths = Field(default=(1, 2, 4, 8), min_length=1)
    with_time_emb: bool = Field(default=True, description="false: no severity input")
    out_dim: Width | None = Field(default=None, description="output channels; none: the image's")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.dim % 2:
            raise ValueError(
                f"dim must be even, got {self.dim}: it holds pairs of sine and cosine"
            )
        if self.dim_mults[0] != 1:
            raise ValueError("dim_mults must start with 1: the last block has `dim` channels")
        return self

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network: forward(x (B, C, H, W), c_noise (B,), labels) -> (B, C', H, W).

        Raises:
            UserError: If the images can't be halved once per level, or there are classes.
        """
        fold = 2 ** (len(self.dim_mults) - 1)
        if shape[1] % fold or shape[2] % fold:
            raise UserError(
                f"cold_unet: images of {shape[1]}x{shape[2]} can't be halved once per level",
                expected=f"sides divisible by {fold}",
            )
        if classes:
            raise UserError("the released cold-diffusion networks take no class labels")
        widths = tuple(self.dim * m for m in self.dim_mults)
        outputs = self.out_dim or shape[0]
        return ColdNet(shape[0], outputs, self.dim, widths, timed=self.with_time_emb)
