"""The contract of a sampler: from a denoiser and seeded noise to images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cmbench.core.component import Component
from cmbench.core.errors import CmbenchError, UserError
from cmbench.core.images import Quantisation, to_pixels
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser

__all__ = ["BoundGenerator", "ImpossibleNFEError", "Sampler"]


class ImpossibleNFEError(UserError):
    """The sampler can't spend exactly the evaluations asked for."""


class Sampler(Component, ABC):
    """Draws images by calling a denoiser. Parameters are fields; `steps`, where there is one, is
    a parameter, and the evaluations spent are counted, not declared.
    """

    kind: ClassVar[str] = "sampler"
    order: ClassVar[int | None] = None
    """Order of convergence in the step size for a smooth ODE; None where the notion is absent."""
    accepts: ClassVar[str] = "denoiser"
    """What kind of module it samples: `denoiser` (sigma-space, the usual case), `restorer` (cold
    diffusion), `oneshot` (a GAN's generator), `bits` (binomial diffusion),
    `discrete` (a denoiser that knows its own steps, as iDDPM),
    `reverse_gaussian` (learned reverse kernels, as of 2015). A sampler of another
    kind than the model's is refused when the suite is checked.
    """

    @abstractmethod
    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), nominally in [-1, 1]; noise.normal(0) is the initial draw."""

    @abstractmethod
    def nfe(self) -> int | None:
        """Evaluations an image that `sample` will spend; None when only counting can tell."""

    def with_nfe(self, nfe: int) -> Self:
        """This sampler with its steps set so that it spends exactly `nfe` evaluations.

        Raises:
            ImpossibleNFEError: If no number of steps spends exactly that, naming the nearest.
        """
        can = self.possible_nfe(nfe)
        if nfe in can:
            return can[nfe]
        near = sorted(can, key=lambda n: (abs(n - nfe), n))[:2]
        raise ImpossibleNFEError(
            f"sampler '{self.name}' can't spend exactly {nfe} evaluations",
            expected="nearest it can: " + " or ".join(map(str, sorted(near)))
            if near
            else "leave nfe out: this sampler has no free number of steps",
        )

    def prefixes(self) -> "tuple[Sampler, ...]":
        """Samplers, each longer than the one before, whose network calls are this one's first.

        Two samplers that name the same one share its calls: the plan has them made once. The last
        may make all the calls of this sampler. Calls are the same only if their inputs are, to
        the bit, for every denoiser; by default none are known to be.
        """
        return ()

    def possible_nfe(self, around: int) -> dict[int, Self]:
        """Samplers near `around` evaluations, by what each spends; by default varies `steps`."""
        if "steps" not in type(self).model_fields:
            spent = self.nfe()
            return {} if spent is None else {spent: self}
        found: dict[int, Self] = {}
        for steps in range(1, around + 2):
            try:
                candidate = type(self).model_validate({**self.model_dump(), "steps": steps})
            except ValueError:
                continue
            spent = candidate.nfe()
            if spent is not None:
                found.setdefault(spent, candidate)
        return found


class BoundGenerator:
    """A denoiser under a sampler: what the engine calls."""

    def __init__(self, denoiser: Denoiser, sampler: Sampler) -> None:
        self.denoiser, self.sampler = denoiser, sampler
        self.shape, self.classes = denoiser.shape, denoiser.classes

    def networks(self) -> list[nn.Module]:
        """The denoiser's networks."""
        return self.denoiser.networks()

    @torch.inference_mode()
    def generate(self, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]."""
        return self.sampler.sample(self.denoiser, noise, labels)

    def images(self, seed: int, indices: Sequence[int], device: torch.device) -> Tensor:
        """Images (B, C, H, W) in [-1, 1]; each follows from (seed, its index) alone.

        Raises:
            CmbenchError: If the model makes another shape than it states.
        """
        noise = Noise(seed, indices, self.shape, device)
        images = self.generate(noise, noise.labels(self.classes) if self.classes else None)
        expected = (len(indices), *self.shape)
        if tuple(images.shape) != expected:
            raise CmbenchError(
                f"the model made images of shape {tuple(images.shape)}, not {expected}"
            )
        return images

    def pixels(
        self,
        seed: int,
        indices: Sequence[int],
        device: torch.device,
        quantisation: Quantisation = "round",
    ) -> Tensor:
        """The same images as bytes on the CPU: uint8 (B, C, H, W).

        Raises:
            CmbenchError: If the model makes another shape than it states.
        """
        return to_pixels(self.images(seed, indices, device), quantisation).cpu()
