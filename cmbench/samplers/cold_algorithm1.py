"""Cold diffusion's Algorithm 1, naive sampling: x_{s'} = D(R(x_s, s), s').

Cold Diffusion (https://arxiv.org/abs/2208.09392), section 3.2. Errors of R accumulate unless R
inverts D exactly. NFE = steps.
"""

from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.cold import Restorer
from cmbench.samplers._cold import ColdSampler

__all__ = ["ColdAlgorithm1"]


class ColdAlgorithm1(ColdSampler):
    """Restores, then degrades to the next lower severity."""

    def _step(
        self,
        restorer: Restorer,
        x: Tensor,
        x0: Tensor,
        level: Tensor,
        below: Tensor,
        noise: Noise | None,
    ) -> Tensor:
        return restorer.degradation.degrade(x0, below, noise)
