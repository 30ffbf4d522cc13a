"""NCSNv2's score network: a dilated RefineNet without a noise-level input.

NCSNv2 (https://arxiv.org/abs/2006.09011, appendix B). `base` is NCSN's four stages, for 32 and 64
pixels; `deeper` (96 and 128) has five, of widths (1, 2, 2, 4, 4), and `deepest` (256) a sixth
between its third and fourth, which the authors call 31. Refinement blocks are numbered upwards,
from the lowest stage; block 31 refines stage 31 and comes before block 3.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.nets._ncsn_blocks import Activation, RefineNet, Stage, Style
from cmbench.nets.base import Network

__all__ = ["NCSNv2RefineNet"]

_FIRST = (Stage("1", 1, down=False), Stage("2", 2))
_LAST = (Stage("4", 4, dilation=2), Stage("5", 4, dilation=4))
_STAGES = {
    "base": (*_FIRST, Stage("3", 2, dilation=2), Stage("4", 2, dilation=4)),
    "deeper": (*_FIRST, Stage("3", 2), *_LAST),
    "deepest": (*_FIRST, Stage("3", 2), Stage("31", 2), *_LAST),
}
_UPWARDS = {
    "base": ("1", "2", "3", "4"),
    "deeper": ("1", "2", "3", "4", "5"),
    "deepest": ("1", "2", "31", "3", "4", "5"),
}
_ACTIVATIONS: dict[str, Activation] = {
    "elu": nnf.elu,
    "relu": nnf.relu,
    "lrelu": lambda x: nnf.leaky_relu(x, 0.2),
    "swish": nnf.silu,
}


class NCSNv2RefineNet(Network):
    """NCSNv2's network; the score is its output divided by sigma."""

    ngf: int = Field(default=128, ge=2, le=16_384, description="width")
    depth: Literal["base", "deeper", "deepest"] = "base"
    nonlinearity: Literal["elu", "relu", "lrelu", "swish"] = "elu"

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network, which takes no class labels."""
        activation = _ACTIVATIONS[self.nonlinearity]
        style = Style(0, activation, refine_norms=False, mean_pool=False)
        stages, upwards = _STAGES[self.depth], _UPWARDS[self.depth]
        return _Unconditional(shape[0], self.ngf, stages, upwards, style)


class _Unconditional(RefineNet):
    def forward(
        self, x: Tensor, c_noise: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        return super().forward(x, x.new_zeros(len(x)).long())
