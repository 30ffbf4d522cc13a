r"""Cold diffusion's objective: mean |x0 - R(D(x0, s), s)| with s uniform in 1..levels.

Cold Diffusion (https://arxiv.org/abs/2208.09392), section 3.1. The loss also fits a mixture of
Gaussians to the channel means of the images, the start of unconditional generation.
"""

import warnings
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cmbench.core.errors import UserError
from cmbench.core.random import Noise
from cmbench.denoise.cold import Restorer
from cmbench.train.draws import Draws
from cmbench.train.objectives.base import Loss, Objective, Setup

__all__ = ["Cold"]

_KEPT = 8192
_FIT_EVERY = 500


class Cold(Objective):
    """The mean over pixels of the restoration's absolute (l1) or squared (l2) error."""

    loss: Literal["l1", "l2"] = "l1"
    quantise: bool = Field(
        default=False, description="round degraded images to 8 bits (the released --discrete)"
    )

    def build(self, setup: Setup) -> Loss:
        """Builds the loss on the student.

        Raises:
            UserError: If the student is not a restorer.
        """
        if not isinstance(setup.student, Restorer):
            raise UserError(
                f"objective 'cold' trains a Restorer, not a {type(setup.student).__name__}",
                fix="model: {name: cold, ...}",
            )
        return _Restoration(self, setup.student, setup.total_steps)


class _Restoration(Loss):
    means: Tensor
    seen: Tensor

    def __init__(self, spec: Cold, student: Restorer, total_steps: int) -> None:
        super().__init__()
        self.spec, self.student, self.total_steps = spec, student, total_steps
        self.register_buffer("means", torch.zeros(_KEPT, student.shape[0]))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor, labels: Tensor | None, step: int, draws: Draws) -> Tensor:
        student = self.student
        self._keep(images.mean((2, 3)))
        severity = 1 + draws.integers(student.levels)
        noise = _noise(images, draws)
        degraded = student.degradation.degrade(images, severity, noise)
        if self.spec.quantise:
            degraded = ((degraded + 1) * 0.5 * 255).int().to(images.dtype) / 255 * 2 - 1
        error = student(degraded, severity, labels) - images
        error = error.abs() if self.spec.loss == "l1" else error.square()
        return error.flatten(1).mean(1)

    def after_step(self, step: int) -> None:
        """Fits the start at intervals and at the end."""
        if (step + 1) % _FIT_EVERY == 0 or step + 1 == self.total_steps:
            self._fit()

    def _keep(self, means: Tensor) -> None:
        seen = int(self.seen)
        room = (seen + torch.arange(len(means), device=means.device)) % _KEPT
        self.means[room] = means.detach()
        self.seen += len(means)

    def _fit(self) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        colours = self.means[: int(self.seen)].double().cpu().numpy()
        mixture = GaussianMixture(self.student.components, tol=1e-3, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(colours)
        parts = (mixture.weights_, mixture.means_, mixture.covariances_)
        self.student.set_start(*(torch.from_numpy(part) for part in parts))


def _noise(images: Tensor, draws: Draws) -> Noise:
    """Returns noise for the random masks of this step, with a seed drawn from `draws`."""
    seed = int(torch.randint(2**62, (), generator=draws.generator))
    first, last = draws.part
    return Noise(seed, range(first, last), tuple(images.shape[1:]), images.device, images.dtype)
