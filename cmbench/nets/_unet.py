"""The U-Net of EDM's DDPM++, NCSN++ and ADM and of OpenAI's UNetModel, assembled from a plan.

Entries have EDM's names (`enc.16x16_block0`, `dec.8x8_in0`), so that a state_dict shows the plan;
`cmbench/released/*_names.py` translate the names of official files.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.nets._unet_blocks import (
    Block,
    BlockStyle,
    Conv,
    NoiseEmbedding,
    Norm,
    Resample,
    Strided,
)

__all__ = ["UNet", "UNetPlan"]


@dataclass(frozen=True)
class UNetPlan:
    """Differences between the members of the family.

    Args:
        resolution: Side of the square images.
        inputs: Image channels.
        outputs: Output channels.
        stem: Channels after the first convolution.
        widths: Channels of each level, from the full side down.
        blocks: Residual blocks per level of the encoder; the decoder has one more.
        style: Constants of the blocks.
        embedding: Builds the noise embedding.
        encoder_heads: Attention heads after an encoder block, by (level, channels).
        decoder_heads: Attention heads after a decoder block, by (level, block, channels).
        middle_heads: Heads between the two middle blocks, by channels.
        resampling: `block`: inside residual blocks; `conv`, `plain`: outside of them.
        down_padding: Padding of strided convolutions; 0 pads only after the last row and column.
        encoder: How the input joins lower levels: not at all, summed by 1x1, or NCSN++'s residual.
        decoder: `skip` sums an output of each level.
        xavier: EDM's initialisation of DDPM++ and NCSN++; otherwise torch's, with zero outputs.
    """

    resolution: int
    inputs: int
    outputs: int
    stem: int
    widths: tuple[int, ...]
    blocks: int
    style: BlockStyle
    embedding: Callable[[], NoiseEmbedding]
    encoder_heads: Callable[[int, int], int]
    decoder_heads: Callable[[int, int, int], int]
    middle_heads: Callable[[int], int]
    resampling: Literal["block", "conv", "plain"] = "block"
    down_padding: int = 1
    encoder: Literal["standard", "skip", "residual"] = "standard"
    decoder: Literal["standard", "skip"] = "standard"
    xavier: bool = False


@dataclass
class _Growth:
    """The current number of channels while the network is assembled."""

    now: int
    skips: list[int] = field(default_factory=list)


class UNet(nn.Module):
    """Raw network: forward(x (B, C, H, W), c_noise (B,), labels) -> (B, outputs, H, W).

    Labels are (B,) int64, rows of weights (B, classes), or None. `augment` (B, n) is EDM's
    augmentation label; it is None in sampling.
    """

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.plan = plan
        self.embed = plan.embedding()
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        growth = _Growth(plan.stem)
        self._grow_encoder(growth)
        self._grow_decoder(growth)
        _initialise(self, xavier=plan.xavier)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        emb = self.embed(c_noise, labels, augment)
        x, skips = self._encode(x, emb)
        return self._decode(x, emb, skips)

    def sides(self) -> Iterator[tuple[int, int, str]]:
        """Yields level, width and name prefix (`16x16`) of each level, from the full side down."""
        for level, width in enumerate(self.plan.widths):
            side = self.plan.resolution >> level
            yield level, width, f"{side}x{side}"

    def _grow_encoder(self, growth: _Growth) -> None:
        plan, pyramid = self.plan, self.plan.inputs
        for level, width, side in self.sides():
            if level == 0:
                self.enc[f"{side}_conv"] = Conv(plan.inputs, plan.stem, 3)
            else:
                self.enc[f"{side}_down"] = self._resampling(growth.now, "down")
                pyramid = self._grow_pyramid(side, pyramid, growth.now)
            growth.skips.append(growth.now)
            for i in range(plan.blocks):
                heads = plan.encoder_heads(level, width)
                self.enc[f"{side}_block{i}"] = Block(growth.now, width, plan.style, heads=heads)
                growth.now = width
                growth.skips.append(width)

    def _grow_pyramid(self, side: str, pyramid: int, width: int) -> int:
        taps = self.plan.style.taps
        if self.plan.encoder == "skip":
            self.enc[f"{side}_aux_down"] = Resample("down", taps)
            self.enc[f"{side}_aux_skip"] = Conv(pyramid, width, 1)
        if self.plan.encoder == "residual":
            down = Resample("down", taps)
            self.enc[f"{side}_aux_residual"] = Conv(pyramid, width, 3, down, fused=True)
            return width
        return pyramid

    def _grow_decoder(self, growth: _Growth) -> None:
        plan = self.plan
        lowest = len(plan.widths) - 1
        for level, width, side in reversed(list(self.sides())):
            if level == lowest:
                heads = plan.middle_heads(growth.now)
                self.dec[f"{side}_in0"] = Block(growth.now, growth.now, plan.style, heads=heads)
                self.dec[f"{side}_in1"] = Block(growth.now, growth.now, plan.style)
            else:
                self.dec[f"{side}_up"] = self._resampling(growth.now, "up")
            for i in range(plan.blocks + 1):
                heads = plan.decoder_heads(level, i, width)
                inputs = growth.now + growth.skips.pop()
                self.dec[f"{side}_block{i}"] = Block(inputs, width, plan.style, heads=heads)
                growth.now = width
            if plan.decoder == "skip" or level == 0:
                if level < lowest and plan.decoder == "skip":
                    self.dec[f"{side}_aux_up"] = Resample("up", plan.style.taps)
                self.dec[f"{side}_aux_norm"] = Norm(width, plan.style)
                self.dec[f"{side}_aux_conv"] = Conv(width, plan.outputs, 3)

    def _resampling(self, width: int, direction: Literal["up", "down"]) -> nn.Module:
        if self.plan.resampling == "block":
            return Block(width, width, self.plan.style, resample=direction)
        learned, padding = self.plan.resampling == "conv", self.plan.down_padding
        return Strided(width, direction, learned=learned, padding=padding)

    def _encode(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips: list[Tensor] = []
        pyramid = x
        for name, layer in self.enc.items():
            if name.endswith("_aux_down"):
                pyramid = layer(pyramid)
            elif name.endswith("_aux_skip"):
                x = skips[-1] = x + layer(pyramid)
            elif name.endswith("_aux_residual"):
                x = skips[-1] = pyramid = (x + layer(pyramid)) / math.sqrt(2)
            else:
                x = layer(x) if name.endswith("_conv") else layer(x, emb)
                skips.append(x)
        return x, skips

    def _decode(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        summed: Tensor | None = None
        normed = x
        for name, layer in self.dec.items():
            if name.endswith("_aux_up"):
                summed = layer(summed)
            elif name.endswith("_aux_norm"):
                normed = nnf.silu(layer(x))
            elif name.endswith("_aux_conv"):
                shown = layer(normed)
                summed = shown if summed is None else summed + shown
            else:
                joins = "_block" in name
                x = layer(torch.cat([x, skips.pop()], dim=1) if joins else x, emb)
        assert summed is not None
        return summed


@torch.no_grad()
def _initialise(net: UNet, *, xavier: bool) -> None:
    """Initialises the outputs of blocks to (nearly) zero: a new network is nearly linear."""
    for name, layer in net.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        last = name.endswith(("conv1", "proj", "aux_conv"))
        if xavier:
            nn.init.xavier_uniform_(layer.weight, math.sqrt(0.2) if name.endswith("qkv") else 1.0)
            layer.weight.mul_(1e-5 if last else 1.0)
        elif last:
            layer.weight.zero_()
        elif name.endswith("map_label"):
            layer.weight.normal_()
        if layer.bias is not None and (xavier or last):
            layer.bias.zero_()
