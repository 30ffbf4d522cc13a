"""Cold diffusion (Bansal et al. 2022, https://arxiv.org/abs/2208.09392): restore, step by step."""

from typing import Any, ClassVar, Literal

from torch import nn

from cmbench.api import Degradation, Model, NetworkRestorer, create

__all__ = ["Cold"]


class Cold(Model):
    """A raw network that restores what a degradation took away."""

    makes: ClassVar[frozenset[str]] = frozenset({"restorer"})
    sampler: ClassVar[dict[str, Any] | None] = {"name": "cold_algorithm2", "noise_level": 0.002}

    network: dict[str, Any]
    degradation: dict[str, Any]
    shape: tuple[int, int, int]
    classes: int = 0
    starts: Literal["gmm", "degradation"] = "gmm"
    components: int = 1
    time: Literal["index", "unit"] = "index"
    residual: bool = False

    def build(self) -> nn.Module:
        """A NetworkRestorer."""
        degradation: Degradation = create("degradation", self.degradation)
        return NetworkRestorer(
            create("network", self.network).build(self.shape, self.classes),
            self.shape,
            degradation,
            classes=self.classes,
            starts=self.starts,
            components=self.components,
            time=self.time,
            residual=self.residual,
        )
