"""NCSN++, DDPM++ and DDPM as in score SDE's code, with its option names.

Song et al. (https://arxiv.org/abs/2011.13456, appendix H). NCSN++ has the filter (1, 3, 3, 1),
Fourier features and a residual (or, at 256 pixels, summing) pyramid of the input; DDPM++ has none
of them; `ddpm` is the network of 2020, with attention once per level of the decoder. All of them
have one head of attention at the sides in `attn_resolutions` and in the middle.
"""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.core.bounds import Depth, Widths
from cmbench.core.errors import UserError
from cmbench.nets._unet import UNet, UNetPlan
from cmbench.nets._unet_blocks import BlockStyle, NoiseEmbedding
from cmbench.nets.base import Network

__all__ = ["ScoreSDEUNet"]


class ScoreSDEUNet(Network):
    """Score SDE's network; its time is ln of the label with Fourier features, else the label."""

    family: Literal["ncsnpp", "ddpm"] = Field(default="ncsnpp", description="model.name")
    nf: int = Field(default=128, ge=4, le=16_384, description="base width, scaled by multipliers")
    ch_mult: Widths = Field(default=(1, 2, 2, 2), min_length=1)
    num_res_blocks: Depth = 4
    attn_resolutions: Widths = (16,)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    resamp_with_conv: bool = True
    fir: bool = False
    fir_kernel: tuple[float, ...] = (1, 3, 3, 1)
    skip_rescale: bool = Field(default=True, description="divide sums of branches by sqrt(2)")
    resblock_type: Literal["biggan", "ddpm"] = "biggan"
    progressive: Literal["none", "output_skip"] = "none"
    progressive_input: Literal["none", "input_skip", "residual"] = "none"
    embedding_type: Literal["positional", "fourier"] = "positional"
    fourier_scale: float = Field(default=16.0, gt=0)

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        if self.family == "ddpm" and (self.progressive, self.progressive_input) != ("none",) * 2:
            raise ValueError("ddpm has no pyramids")
        if self.fir and not self._in_blocks and self.resamp_with_conv:
            raise ValueError("fir with resampling convolutions has no resblock_type but biggan")
        if self.progressive_input == "residual" and not self.fir:
            raise ValueError("progressive_input residual needs fir")
        return self

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network for square images (C, H, H).

        Raises:
            UserError: If there are class labels, which the network does not take.
        """
        if classes:
            raise UserError(f"score_sde_unet takes no class labels, not {classes}")
        net = UNet(self.plan(shape))
        if self.embedding_type == "fourier":
            net.embed.freqs.mul_(self.fourier_scale / 16)
        return net

    def plan(self, shape: tuple[int, int, int]) -> UNetPlan:
        """Returns the plan of the network for images of `shape`."""
        side, last = shape[1], self.num_res_blocks
        attended = {i for i in range(len(self.ch_mult)) if side >> i in self.attn_resolutions}
        outside: Literal["conv", "plain"] = "conv" if self.resamp_with_conv else "plain"
        return UNetPlan(
            resolution=side,
            inputs=shape[0],
            outputs=shape[0],
            stem=self.nf,
            widths=tuple(self.nf * m for m in self.ch_mult),
            blocks=self.num_res_blocks,
            style=self._style(),
            embedding=self._embedding,
            encoder_heads=lambda level, _: int(level in attended),
            decoder_heads=lambda level, block, _: int(level in attended and block == last),
            middle_heads=lambda _: 1,
            resampling="block" if self._in_blocks else outside,
            down_padding=0,
            encoder=_ENCODERS[self.progressive_input],
            decoder="skip" if self.progressive == "output_skip" else "standard",
            xavier=True,
        )

    @property
    def _in_blocks(self) -> bool:
        return self.family == "ncsnpp" and self.resblock_type == "biggan"

    def _style(self) -> BlockStyle:
        rescales = self.skip_rescale and self.family == "ncsnpp"
        return BlockStyle(
            embedding=4 * self.nf,
            dropout=self.dropout,
            skip_scale=math.sqrt(0.5) if rescales else 1.0,
            eps=1e-6,
            least_group=4 if self.family == "ncsnpp" else 1,
            scale_shift=False,
            project_resampled=True,
            taps=self.fir_kernel if self.fir else (1, 1),
        )

    def _embedding(self) -> NoiseEmbedding:
        fourier = self.embedding_type == "fourier"
        return _Embedding(
            self.nf * (2 if fourier else 1),
            4 * self.nf,
            fourier=fourier,
            endpoint=True,
            sine_first=True,
        )


class _Embedding(NoiseEmbedding):
    """Multiplies by 2 pi after the product with c_noise, as in score SDE: rounding is visible."""

    def forward(self, c_noise: Tensor, labels: Tensor | None, augment: Tensor | None) -> Tensor:
        phase = torch.outer(c_noise.to(self.freqs.dtype), self.freqs) * self.turns
        waves = torch.cat([phase.sin(), phase.cos()], dim=1).to(self.map_layer0.weight.dtype)
        return nnf.silu(self.map_layer1(nnf.silu(self.map_layer0(waves))))


_ENCODERS: dict[str, Literal["standard", "skip", "residual"]] = {
    "none": "standard",
    "input_skip": "skip",
    "residual": "residual",
}
