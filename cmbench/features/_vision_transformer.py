"""Vision transformers that map an image to one vector, in the layouts of DINOv2 and CLIP.

Dosovitskiy et al. (2020, https://arxiv.org/abs/2010.11929): patches and a class token, pre-norm
blocks x + attention(norm(x)), x + mlp(norm(x)). DINOv2 (https://arxiv.org/abs/2304.07193) scales
both branches by a vector; CLIP (https://arxiv.org/abs/2103.00020) normalises before the first
block, uses x sigmoid(1.702 x) in its MLP, and projects the class token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["VisionTransformer", "clip_layout", "dinov2_layout"]

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Shape:
    width: int
    patch: int
    places: int
    depth: int
    hidden: int
    heads: int
    scaled: bool
    before: bool
    projected: int
    epsilon: float

    @property
    def quick(self) -> bool:
        """True if the MLP has CLIP's approximation of the GELU."""
        return self.before


class _Block(nn.Module):
    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        width, self.heads, self.quick = shape.width, shape.heads, shape.quick
        self.norm1 = nn.LayerNorm(width, eps=shape.epsilon)
        self.norm2 = nn.LayerNorm(width, eps=shape.epsilon)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, shape.hidden), nn.Linear(shape.hidden, width)
        if shape.scaled:
            self.scale1 = nn.Parameter(torch.ones(width))
            self.scale2 = nn.Parameter(torch.ones(width))
        self.scaled = shape.scaled

    def forward(self, x: Tensor) -> Tensor:
        attended = self._attend(self.norm1(x))
        x = x + (attended * self.scale1 if self.scaled else attended)
        update = self._mlp(self.norm2(x))
        return x + (update * self.scale2 if self.scaled else update)

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out

    def _mlp(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        h = h * torch.sigmoid(1.702 * h) if self.quick else functional.gelu(h)
        out: Tensor = self.fc2(h)
        return out


class VisionTransformer(nn.Module):
    """Maps normalised images (B, 3, H, W), H and W multiples of the patch, to vectors (B, d)."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Conv2d(3, shape.width, shape.patch, shape.patch, bias=not shape.before)
        self.token = nn.Parameter(torch.zeros(shape.width))
        self.places = nn.Parameter(torch.zeros(shape.places, shape.width))
        self.before = nn.LayerNorm(shape.width, eps=shape.epsilon) if shape.before else None
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.head = (
            nn.Linear(shape.width, shape.projected, bias=False) if shape.projected else None
        )

    @classmethod
    def of(cls, shape: _Shape, state: State) -> Self:
        """Builds a network of this shape with these weights, loaded strictly."""
        net = cls(shape)
        net.load_state_dict(dict(state))
        return net

    @property
    def width(self) -> int:
        """Returns the length of an image's vector."""
        return self.shape.projected or self.shape.width

    def forward(self, x: Tensor) -> Tensor:
        """Returns the class token after the last norm, projected if the network has a head."""
        patches = self.embed(x)
        grid = patches.shape[-2], patches.shape[-1]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), 1, -1), tokens], 1)
        tokens = tokens + self._places(grid)
        if self.before is not None:
            tokens = self.before(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        pooled: Tensor = self.norm(tokens[:, 0])
        return pooled if self.head is None else self.head(pooled)

    def _places(self, grid: tuple[int, int]) -> Tensor:
        """Interpolates the position vectors to a grid, bicubic as in DINOv2's code."""
        side = round((len(self.places) - 1) ** 0.5)
        if grid == (side, side):
            return self.places
        square = self.places[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        # As in DINOv2's code, 0.1 is added to the new grid against rounding down.
        factors = [(n + 0.1) / side for n in grid]
        scaled = functional.interpolate(square, scale_factor=factors, mode="bicubic")
        return torch.cat([self.places[:1], scaled.flatten(2)[0].T])


def dinov2_layout(state: State, heads: int | None = None) -> tuple[_Shape, dict[str, Tensor]]:
    """Returns shape and weights from a state dict of facebookresearch/dinov2 or timm.

    Raises:
        KeyError: If an entry is missing.
    """
    embed, places = state["patch_embed.proj.weight"], state["pos_embed"]
    width, depth = embed.shape[0], _depth(state, "blocks.")
    shape = _Shape(width, embed.shape[-1], places.shape[1], depth,
                   state["blocks.0.mlp.fc1.weight"].shape[0], heads or width // 64,
                   scaled=True, before=False, projected=0, epsilon=1e-6)  # fmt: skip
    weights = {
        "embed.weight": embed,
        "embed.bias": state["patch_embed.proj.bias"],
        "token": state["cls_token"].flatten(),
        "places": places[0],
    } | _pair(state, "norm", "norm")
    for i in range(depth):
        old = new = f"blocks.{i}"
        for theirs in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            weights |= _pair(state, f"{old}.{theirs}", f"{new}.{theirs.split('.')[-1]}")
        weights |= {f"{new}.scale{n}": state[f"{old}.ls{n}.gamma"] for n in (1, 2)}
    return shape, weights


def clip_layout(state: State, heads: int | None = None) -> tuple[_Shape, dict[str, Tensor]]:
    """Returns shape and weights of the vision part of a CLIP state dict in Hugging Face's layout.

    Raises:
        KeyError: If an entry is missing.
    """
    head = state["visual_projection.weight"]
    inner = {k[13:]: v for k, v in state.items() if k.startswith("vision_model.")}
    embed = inner["embeddings.patch_embedding.weight"]
    places = inner["embeddings.position_embedding.weight"]
    width, depth = embed.shape[0], _depth(inner, "encoder.layers.")
    shape = _Shape(width, embed.shape[-1], len(places), depth,
                   inner["encoder.layers.0.mlp.fc1.weight"].shape[0], heads or width // 64,
                   scaled=False, before=True, projected=head.shape[0], epsilon=1e-5)  # fmt: skip
    weights = {
        "embed.weight": embed,
        "token": inner["embeddings.class_embedding"],
        "places": places,
        "head.weight": head,
    }
    # `pre_layrnorm` is misspelt in the file.
    weights |= _pair(inner, "pre_layrnorm", "before") | _pair(inner, "post_layernorm", "norm")
    for i in range(depth):
        old, new = f"encoder.layers.{i}", f"blocks.{i}"
        for theirs, ours in (("layer_norm1", "norm1"), ("layer_norm2", "norm2"),
                             ("self_attn.out_proj", "proj"), ("mlp.fc1", "fc1"),
                             ("mlp.fc2", "fc2")):  # fmt: skip
            weights |= _pair(inner, f"{old}.{theirs}", f"{new}.{ours}")
        for part in ("weight", "bias"):
            weights[f"{new}.qkv.{part}"] = torch.cat(
                [inner[f"{old}.self_attn.{which}_proj.{part}"] for which in "qkv"]
            )
    return shape, weights


def _pair(state: State, theirs: str, ours: str) -> dict[str, Tensor]:
    return {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}


def _depth(state: State, prefix: str) -> int:
    numbers = {int(k[len(prefix) :].split(".")[0]) for k in state if k.startswith(prefix)}
    return max(numbers, default=-1) + 1
