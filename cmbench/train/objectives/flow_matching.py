"""Flow matching on straight lines from data to noise, the first round of rectified flow.

Lipman et al. (https://arxiv.org/abs/2210.02747, eq. 23), Liu et al. (https://arxiv.org/abs/2209.03003,
eq. 1): v(x_t, t) regresses on n - x0 at uniform t. Logit-normal times are Esser et al.'s
(https://arxiv.org/abs/2403.03206, eq. 19).
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cmbench.train.draws import Draws
from cmbench.train.objectives._flow import FlowLoss
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["FlowMatching"]


class FlowMatching(Objective):
    """The mean squared error of the velocity."""

    times: Literal["uniform", "logit_normal"] = "uniform"
    t_mean: float = Field(default=0.0, description="logit_normal: mean of the logit of t")
    t_std: float = Field(
        default=1.0, gt=0, description="logit_normal: standard deviation of the logit"
    )

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student predicts no velocities.
        """
        return _Matching(self, setup)


class _Matching(FlowLoss):
    def __init__(self, spec: FlowMatching, setup: Setup) -> None:
        super().__init__(setup)
        self.spec = spec

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        if self.spec.times == "uniform":
            t = draws.uniform()
        else:
            t = torch.sigmoid(self.spec.t_mean + self.spec.t_std * draws.normal())
        return self.match(images, draws.normal(*images.shape[1:]), t, labels)
