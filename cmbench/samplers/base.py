"""The contract of a sampler, which turns seeded noise into images by calling a denoiser."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cmbench.core.bounds import MOST_STEPS
from cmbench.core.component import Component
from cmbench.core.errors import CmbenchError, UserError
from cmbench.core.images import Quantisation, to_pixels
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser

__all__ = ["BoundGenerator", "ImpossibleNFEError", "Sampler"]


class ImpossibleNFEError(UserError):
    """Raised if a sampler can't spend exactly the requested number of evaluations."""


class Sampler(Component, ABC):
    """Draws images by calling a denoiser.

    Its parameters are fields, `steps` among them where a sampler has steps. The evaluations of a
    run are counted, not declared.
    """

    kind: ClassVar[str] = "sampler"
    order: ClassVar[int | None] = None
    """Order of convergence in the step size for a smooth ODE; None where it is not defined."""
    accepts: ClassVar[str] = "denoiser"
    """Kind of module that the sampler samples.

    `denoiser` (sigma-space, the usual case), `restorer` (cold diffusion), `oneshot` (a GAN's
    generator), `bits` (binomial diffusion), `discrete` (a denoiser with discrete steps, such as
    iDDPM), `reverse_gaussian` (learned reverse kernels, Sohl-Dickstein et al. 2015), `flow`
    (velocities) or `jump` (mean velocities). The check of a suite refuses a sampler for another
    kind than the model's.
    """

    @abstractmethod
    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), nominally in [-1, 1]; noise.normal(0) is the first draw."""

    @abstractmethod
    def nfe(self) -> int | None:
        """Evaluations per image that `sample` will spend; None if they must be counted."""

    def require_range(self, low: float, high: float) -> None:
        """Refuses parameters that a model's range of noise levels can't serve; none by default.

        Args:
            low: The model's least noise level, sigma_min.
            high: Its greatest, sigma_max.

        Raises:
            UserError: Naming the parameter.
        """

    def with_nfe(self, nfe: int) -> Self:
        """Returns this sampler with its steps set so that it spends exactly `nfe` evaluations.

        Raises:
            ImpossibleNFEError: If no number of steps spends exactly that; names the nearest.
            UserError: If it is not 1 to 10,000.
        """
        if not 1 <= nfe <= MOST_STEPS:
            raise UserError(f"nfe is {nfe}", expected=f"1 to {MOST_STEPS:,} evaluations")
        samplers = self.possible_nfe(nfe)
        if nfe in samplers:
            return samplers[nfe]
        near = sorted(samplers, key=lambda n: (abs(n - nfe), n))[:2]
        raise ImpossibleNFEError(
            f"sampler '{self.name}' can't spend exactly {nfe} evaluations",
            expected="the nearest possible: " + " or ".join(map(str, sorted(near)))
            if near
            else "leave nfe out: this sampler has no free number of steps",
        )

    def prefixes(self) -> "tuple[Sampler, ...]":
        """Returns shorter samplers, in ascending length, whose network calls begin this one's.

        Samplers that return the same prefix share its calls: the plan computes them once. The last
        prefix may make all calls of this sampler. Calls are shared only if their inputs are equal
        to the bit for every denoiser; by default no prefix is known.
        """
        return ()

    def possible_nfe(self, around: int) -> dict[int, Self]:
        """Maps evaluations to samplers near `around` evaluations; by default varies `steps`."""
        if "steps" not in type(self).model_fields:
            count = self.nfe()
            return {} if count is None else {count: self}
        samplers: dict[int, Self] = {}
        for steps in range(1, around + 2):
            try:
                candidate = type(self).model_validate({**self.model_dump(), "steps": steps})
            except ValueError:
                continue
            count = candidate.nfe()
            if count is not None:
                samplers.setdefault(count, candidate)
        return samplers


class BoundGenerator:
    """A denoiser with its sampler, the generator that the engine calls."""

    def __init__(self, denoiser: Denoiser, sampler: Sampler) -> None:
        self.denoiser, self.sampler = denoiser, sampler
        self.shape, self.classes = denoiser.shape, denoiser.classes

    def networks(self) -> list[nn.Module]:
        """Returns the denoiser's networks."""
        return self.denoiser.networks()

    @torch.inference_mode()
    def generate(self, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W) in [-1, 1]."""
        return self.sampler.sample(self.denoiser, noise, labels)

    def images(self, seed: int, indices: Sequence[int], device: torch.device) -> Tensor:
        """Returns images (B, C, H, W) in [-1, 1]; each depends on (seed, its index) alone.

        Raises:
            CmbenchError: If the images do not have the shape that the model states.
        """
        noise = Noise(seed, indices, self.shape, device)
        images = self.generate(noise, noise.labels(self.classes) if self.classes else None)
        expected = (len(indices), *self.shape)
        if tuple(images.shape) != expected:
            raise CmbenchError(
                f"the model returned images of shape {tuple(images.shape)}, not {expected}"
            )
        return images

    def pixels(
        self,
        seed: int,
        indices: Sequence[int],
        device: torch.device,
        quantisation: Quantisation = "round",
    ) -> Tensor:
        """Returns the same images as bytes on the CPU, uint8 (B, C, H, W).

        Raises:
            CmbenchError: If the images do not have the shape that the model states.
        """
        return to_pixels(self.images(seed, indices, device), quantisation).cpu()
