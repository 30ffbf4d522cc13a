"""Hot noise as a degradation: a Gaussian z, fixed or re-estimated at each step.

Fixed noise is Algorithm 2 with the z of the start; estimated noise (sampler
`cold_estimated`) is deterministic DDIM. Cold Diffusion (https://arxiv.org/abs/2208.09392),
section 5.
"""

from torch import Tensor

from cmbench.core.random import Noise
from cmbench.degradations._mixing import Mixing

__all__ = ["Gaussian"]


class Gaussian(Mixing):
    """Standard normal noise, the initial draw of the image."""

    def other(self, noise: Noise) -> Tensor:
        """Returns draw 0, standard normal."""
        return noise.normal(0)
