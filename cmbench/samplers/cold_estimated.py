"""Hot diffusion with re-estimated noise: z = (x - sqrt(abar) x0) / sqrt(1 - abar).

Cold Diffusion (https://arxiv.org/abs/2208.09392), section 5: equal to deterministic DDIM
(https://arxiv.org/abs/2010.02502, eq. 12 with sigma = 0). NFE = steps.
"""

from typing import Protocol, runtime_checkable

from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.cold import Restorer
from cmbench.samplers._cold import ColdSampler

__all__ = ["ColdEstimated"]


@runtime_checkable
class _Mixes(Protocol):
    def mix(self, x0: Tensor, z: Tensor, severity: Tensor) -> Tensor: ...

    def estimated(self, x: Tensor, x0: Tensor, severity: Tensor) -> Tensor: ...


class ColdEstimated(ColdSampler):
    """Samples restorers of degradations that mix in another image: `gaussian`, `animorphosis`."""

    def _step(
        self,
        restorer: Restorer,
        x: Tensor,
        x0: Tensor,
        level: Tensor,
        below: Tensor,
        noise: Noise | None,
    ) -> Tensor:
        mixing = restorer.degradation
        if not isinstance(mixing, _Mixes):
            raise UserError(
                f"sampler '{self.name}' needs a degradation that mixes in an image to estimate",
                expected="gaussian or animorphosis",
            )
        return mixing.mix(x0, mixing.estimated(x, x0, level), below)
