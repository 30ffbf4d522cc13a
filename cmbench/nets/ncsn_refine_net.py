"""NCSN's score network: a dilated RefineNet whose norms are conditioned on the noise level.

NCSN (https://arxiv.org/abs/1907.05600, appendix A). Four stages of widths (1, 2, 2, 2); the
second halves the sides, the third and fourth are dilated by 2 and 4 instead.
"""

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.core.bounds import Width
from cmbench.nets._ncsn_blocks import RefineNet, Stage, Style
from cmbench.nets.base import Network

__all__ = ["NCSNRefineNet"]

_STAGES = (
    Stage("1", 1, down=False),
    Stage("2", 2),
    Stage("3", 2, dilation=2),
    Stage("4", 2, dilation=4),
)
_UPWARDS = ("1", "2", "3", "4")


class NCSNRefineNet(Network):
    """NCSN's network; its second argument is the level's index, 0 for the most noise."""

    ngf: int = Field(default=128, ge=2, le=16_384, description="width")
    levels: Width = Field(default=10, description="number of noise levels")

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the raw network, which takes no class labels."""
        style = Style(self.levels, nnf.elu, refine_norms=True, mean_pool=True)
        return _Indexed(shape[0], self.ngf, _STAGES, _UPWARDS, style)


class _Indexed(RefineNet):
    def forward(self, x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(x, level.long())
