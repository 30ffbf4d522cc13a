"""Ranges that fields of many components share: what a number can be, stated in its type.

A number without an upper bound makes a plan, a search or an allocation without end; these bounds
lie far above what is used.
"""

from typing import Annotated

from pydantic import Field

__all__ = [
    "MOST_STEPS",
    "Classes",
    "Depth",
    "ImageShape",
    "Levels",
    "Seed",
    "Steps",
    "Width",
    "Widths",
]

MOST_STEPS = 10_000
"""Most steps of a sampler, and most network evaluations per image."""

Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
"""Steps of a sampler, or network evaluations per image."""

Levels = Annotated[int, Field(ge=1, le=100_000)]
"""Steps or noise levels of a diffusion process."""

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A seed of `cmbench.core.random.Noise`."""

Classes = Annotated[int, Field(ge=0, le=1_000_000)]
"""Number of classes; 0: unconditional."""

Width = Annotated[int, Field(ge=1, le=16_384)]
"""Channels or features of a layer, a factor of them, or a side in pixels."""

Widths = tuple[Width, ...]
"""Widths of a network's levels, or factors of one width."""

Depth = Annotated[int, Field(ge=0, le=256)]
"""Layers or blocks, one after another."""

ImageShape = tuple[
    Annotated[int, Field(ge=1, le=1024)],
    Annotated[int, Field(ge=1, le=16_384)],
    Annotated[int, Field(ge=1, le=16_384)],
]
"""Shape of an image: channels, height and width in pixels."""
