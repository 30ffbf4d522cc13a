r"""DDPM's process as a denoiser (https://arxiv.org/abs/2006.11239) whose network predicts noise,
x0 or v (https://arxiv.org/abs/2202.00512), with the conventions of its own sampler.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from cmbench.denoise.base import expand
from cmbench.denoise.convert import clean_from, vp_scales
from cmbench.denoise.released_denoisers import DiscreteVPDenoiser

__all__ = ["DDPMDenoiser", "Habits", "Prediction"]

Prediction = Literal["epsilon", "sample", "v_prediction"]


@dataclass(frozen=True)
class Habits:
    """Conventions by which the process is sampled, unless a sampler's fields say otherwise.

    Args:
        variance: Which of DDPM's two fixed variances is used: beta~ is small, beta large.
        clip: Bound on |D| at each step; None for no bound.
        grid: Spacing of the steps, under diffusers' names.
        offset: Number added to each step of the `leading` grid.
        ends_clean: Whether the last step goes to clean images or to the first noise level.
    """

    variance: Literal["small", "large"] = "large"
    clip: float | None = 1.0
    grid: Literal["leading", "linspace", "trailing", "even"] = "leading"
    offset: int = 0
    ends_clean: bool = True


class DDPMDenoiser(DiscreteVPDenoiser):
    r"""D = x - s eps(x / sqrt(1 + s^2), t(s)); from v: D = x / (1 + s^2) - s v / sqrt(1 + s^2).

    Args:
        net: Raw network; its first C outputs are the prediction.
        shape: Shape of one image, (C, H, W).
        abar: Cumulative products of 1 - beta, (T,), float64.
        classes: Number of class labels.
        prediction: Kind of the network's output.
        habits: Conventions of its own sampler.
        time_scale: Factor from the step to the network's time.
        sigma_min: Least noise level of sampling; by default the process's.
        sigma_max: Greatest noise level of sampling; by default the process's, at most 80.
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        abar: Tensor,
        *,
        classes: int = 0,
        prediction: Prediction = "epsilon",
        habits: Habits | None = None,
        time_scale: float = 1.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        super().__init__(
            net,
            shape,
            abar,
            classes=classes,
            time_scale=time_scale,
            predicts_x0=prediction == "sample",
            sigma_min=sigma_min,
            sigma_max=sigma_max,
        )
        self.prediction, self.habits = prediction, habits or Habits()

    def split(
        self, x: Tensor, sigma: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns D(x; sigma) and the raw variance channels, None if no variance is learned."""
        if self.prediction != "v_prediction":
            return super().split(x, sigma, labels)
        raw = self.raw(x, sigma, labels).to(x.dtype)
        channels = x.shape[1]
        a, s = vp_scales(sigma.to(x.dtype).expand(len(x)))
        learned = raw[:, channels:] if raw.shape[1] > channels else None
        return clean_from(raw[:, :channels], expand(a, x) * x, a, s, "v"), learned
