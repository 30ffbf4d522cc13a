"""Cold diffusion's Algorithm 2: x_{s'} = x_s - D(R(x_s, s), s) + D(R(x_s, s), s').

Cold Diffusion (https://arxiv.org/abs/2208.09392), section 3.3: for D(x, s) = x + s e it is exact
for any R, so errors of R do not accumulate. NFE = steps.
"""

from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.cold import Restorer
from cmbench.samplers._cold import ColdSampler

__all__ = ["ColdAlgorithm2"]


class ColdAlgorithm2(ColdSampler):
    """Moves x by the difference between the restoration degraded to either end of the stride."""

    def _step(
        self,
        restorer: Restorer,
        x: Tensor,
        x0: Tensor,
        level: Tensor,
        below: Tensor,
        noise: Noise | None,
    ) -> Tensor:
        degrade = restorer.degradation.degrade
        return x - degrade(x0, level, noise) + degrade(x0, below, noise)
