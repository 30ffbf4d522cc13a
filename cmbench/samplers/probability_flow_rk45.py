r"""The probability-flow ODE, solved to a tolerance: score SDE's black-box ODE sampler.

Score SDE (https://arxiv.org/abs/2011.13456, section 4.3 and appendix D.4):
dy/dt = f(y, t) - g(t)^2 score(y, t) / 2 from t = 1 to the process's end by Dormand and Prince's
RK45. The number of evaluations depends on the data; it is counted.
"""

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise._rk45 import integrate
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.sde_denoiser import Scores
from cmbench.samplers._ode import start
from cmbench.samplers.base import Sampler

__all__ = ["ProbabilityFlowRK45"]


class ProbabilityFlowRK45(Sampler):
    """Solves the ODE with step sizes per image, so that an image does not depend on its batch.

    An image that has reached the end is not evaluated any more. The authors solve the batch as one
    vector, in which an image depends on the others: `shared_steps`.
    """

    rtol: float = Field(default=1e-5, gt=0, description="relative tolerance")
    atol: float = Field(
        default=1e-5, gt=0, description="absolute tolerance, in the process's units"
    )
    denoise: bool = Field(default=False, description="add a noise-free step at the end")
    end: float | None = Field(default=None, gt=0, lt=1, description="last t; none: the process's")
    shared_steps: bool = Field(default=False, description="one step size per batch")

    def nfe(self) -> int | None:
        """Returns None: the evaluations must be counted."""
        return None

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64.

        Raises:
            UserError: If the solver can't meet the tolerance.
        """
        scores = Scores(denoiser)
        end = self.end or scores.sde.end
        y = start(noise, scores.sde.prior_std())

        def slope(rows: Tensor, t: Tensor, index: Tensor) -> Tensor:
            state = rows.reshape(-1, *y.shape[1:])
            row_labels = None if labels is None else labels[index]
            return scores.flow(state, t, row_labels).flatten(1)

        solution = integrate(
            slope, y.flatten(1), 1.0, end, rtol=self.rtol, atol=self.atol, shared=self.shared_steps
        )
        y = solution.y.reshape(y.shape)
        if self.denoise:
            y = _denoised(scores, y, end, labels)
        return scores.to_images(y)


def _denoised(scores: Scores, y: Tensor, end: float, labels: Tensor | None) -> Tensor:
    """Returns the mean of one reverse-diffusion step of 1000, as in the authors' code."""
    t = torch.full((len(y),), end, dtype=y.dtype, device=y.device)
    drift, spread = scores.sde.discretize(y, t, 1000)
    return y - drift + expand(spread**2, y) * scores.score(y, t, labels)
