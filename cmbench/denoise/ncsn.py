r"""Score networks on a ladder of noise levels, in sigma-space, and NCSNv2's choice of a ladder.

NCSN (https://arxiv.org/abs/1907.05600, section 4) conditions its network on a level's index;
NCSNv2 (https://arxiv.org/abs/2006.09011) divides an unconditional network's output by sigma. Both
use images in [0, 1], which the network maps to [-1, 1] itself: in our units levels are doubled,
the network's input is x, and D(x; sigma) = x + sigma r, where r is level * score for NCSN and the
undivided output for NCSNv2.
"""

import math

import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor, nn

from cmbench.denoise.base import Denoiser, expand

__all__ = [
    "NCSNDenoiser",
    "ladder",
    "ladder_count",
    "ladder_ratio",
    "langevin_drift",
    "langevin_rate",
    "largest_distance",
]


class NCSNDenoiser(Denoiser):
    r"""D(x; sigma) = x + sigma r(x).

    A conditional network is evaluated at the level nearest in ln sigma, and its score is assumed
    to grow as 1 / sigma in between. That is exact at the levels, the only ones it was trained at.

    Args:
        net: The raw network. NCSN: net(x, index (B,), labels) -> score; NCSNv2:
            net(x, zeros (B,), labels) -> sigma times the score.
        shape: Shape of one image, (C, H, W).
        levels: Noise levels in the authors' units, descending, (L,).
        conditional: Whether the network is conditioned on the level (NCSN).
        unit: Our units over theirs: 2 for images in [0, 1], 1 for images in [-1, 1].
    """

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        levels: Tensor,
        *,
        conditional: bool,
        unit: float = 2.0,
    ) -> None:
        # A plain float64 tensor, not a buffer: a cast of the module must not round it.
        self._levels = levels.double() * unit
        ends = float(self._levels[-1]), float(self._levels[0])
        super().__init__(shape, sigma_min=ends[0], sigma_max=ends[1])
        self.net, self.conditional, self.unit = net, conditional, unit

    @property
    def levels(self) -> Tensor:
        """Noise levels in our units, descending, (L,), float64, on the CPU."""
        return self._levels

    def index(self, sigma: Tensor) -> Tensor:
        """Index of the level nearest in ln sigma, int64, of sigma's shape; 0 is the noisiest."""
        known = self._levels.to(sigma.device).log()
        flat = sigma.double().log().reshape(-1, 1)
        return (flat - known).abs().argmin(1).reshape(sigma.shape)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Returns the nearest level for a conditional network; NCSNv2's accepts any level."""
        if not self.conditional:
            return sigma
        return self._levels.to(sigma.device)[self.index(sigma)].to(sigma.dtype)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns D(x; sigma) in x's type; the network runs in its own type."""
        dtype = next(self.net.parameters(), x).dtype
        wide = sigma.double().expand(len(x))
        condition, factor = torch.zeros_like(wide), wide
        if self.conditional:
            index = self.index(wide)
            condition, factor = index, wide * self._levels.to(wide.device)[index] / self.unit
        raw: Tensor = self.net(x.to(dtype), condition.to(dtype), labels)
        return x + expand(factor.to(x.dtype), x) * raw.to(x.dtype)


def ladder(begin: float, end: float, count: int, *, uniform: bool = False) -> Tensor:
    """Returns `count` levels from `begin` down to `end`, float64: geometric or evenly spaced."""
    if uniform:
        return torch.linspace(begin, end, count, dtype=torch.float64)
    ends = math.log(begin), math.log(end)
    return torch.linspace(*ends, count, dtype=torch.float64).exp()


def largest_distance(images: Tensor) -> float:
    """Technique 1: sigma_1 is the greatest Euclidean distance between two images (N, C, H, W)."""
    flat = images.flatten(1).double()
    return float(max(torch.cdist(rows, flat).max() for rows in flat.split(1024)))


def ladder_ratio(dimension: int, overlap: float = 0.5) -> float:
    r"""Technique 2: the ratio of neighbouring levels, for images of `dimension` values.

    Phi(sqrt(2 d)(g - 1) + 3 g) - Phi(sqrt(2 d)(g - 1) - 3 g) = overlap: the share of one level's
    shell within three deviations of the next one's (section 3.2).
    """
    root = math.sqrt(2)

    def excess(g: float) -> float:
        far = math.sqrt(2 * dimension) * (g - 1)
        return (math.erf((far + 3 * g) / root) - math.erf((far - 3 * g) / root)) / 2 - overlap

    return float(brentq(excess, 1.0, 1 + 20 / math.sqrt(2 * dimension) + 20 / dimension))


def ladder_count(begin: float, end: float, ratio: float) -> int:
    """Number of levels from `begin` to `end` whose neighbours differ by at most `ratio`."""
    return math.ceil(math.log(begin / end) / math.log(ratio) - 1e-9) + 1


def langevin_drift(rate: float, ratio: float, steps: int) -> float:
    """Technique 4: variance over sigma_i^2 after `steps` updates at level i, best equal to 1.

    (1 - r)^(2 T) (g^2 - b) + b with b = 2 r / (1 - (1 - r)^2) and r = step / sigma_L^2, where g^2
    is the variance inherited from the level before (section 3.3).
    """
    limit = 2 / (2 - rate)  # b, the stationary variance
    return float((1 - rate) ** (2 * steps) * (ratio**2 - limit) + limit)


def langevin_rate(ratio: float, steps: int) -> float:
    """Technique 4: the step over sigma_L^2 for which `langevin_drift` is nearest to 1."""
    minimum = minimize_scalar(
        lambda rate: langevin_drift(rate, ratio, steps),
        bounds=(1e-6, 1.0),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(minimum.x)
