r"""Predictor-corrector sampling of score SDEs: at each time a Langevin correction, then a step.

Score SDE (https://arxiv.org/abs/2011.13456, appendix G). Times are even from 1 to the process's
end. The corrector comes first, as in the authors' code, and the last step adds no noise.
NFE = steps * (1 + corrector_steps), or steps without a corrector.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.bounds import Steps
from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.sde_denoiser import Scores
from cmbench.samplers._ode import start
from cmbench.samplers.base import Sampler

__all__ = ["PredictorCorrector"]


class PredictorCorrector(Sampler):
    """Predictor-corrector sampling; the defaults are the authors' for VE at 32 x 32 pixels.

    For VP and sub-VP the authors use `euler_maruyama` without a corrector. A denoiser that is no
    score SDE is treated as a VE process.

    The Langevin corrector's step is 2 a (snr |z| / |score|)^2. The authors average both norms over
    the batch, which makes an image depend on the others of its batch; here each image has its own
    norms. A step that depends on the state increases the variance by about 2 / d for d values per
    image: negligible at 3 x 32 x 32, a few percent at 8 x 8. `norms: batch` is the authors', with
    which an image depends on its batch; `ald` needs no norms.
    """

    steps: Steps = Field(default=1000, description="times, from 1 to the end")
    predictor: Literal["reverse_diffusion", "ancestral", "euler_maruyama", "none"] = (
        "reverse_diffusion"
    )
    corrector: Literal["langevin", "ald", "none"] = "langevin"
    corrector_steps: Steps = Field(default=1, description="corrections per time")
    snr: float = Field(default=0.16, gt=0, description="signal-to-noise ratio of a correction")
    norms: Literal["image", "batch"] = Field(
        default="image", description="norms of the corrector's step, per image or batch"
    )
    probability_flow: bool = Field(default=False, description="the ODE: half the score, no noise")
    denoise: bool = Field(default=True, description="no noise in the last predictor step")
    end: float | None = Field(default=None, gt=0, lt=1, description="last t; none: the process's")

    @model_validator(mode="after")
    def _possible(self) -> "PredictorCorrector":
        if self.predictor == "none" and self.corrector == "none":
            raise ValueError("predictor and corrector can't both be none")
        if self.predictor == "ancestral" and self.probability_flow:
            raise ValueError("the ancestral predictor has no probability flow")
        return self

    def nfe(self) -> int:
        """One evaluation per predictor step and per correction."""
        return self.steps * (int(self.predictor != "none") + self._corrections)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Returns images (B, C, H, W), float64; noise draws are numbered in order, from 0.

        Raises:
            UserError: If the process has no such predictor, or needs more steps.
        """
        scores = Scores(denoiser)
        y = mean = start(noise, scores.sde.prior_std())
        once, draw = torch.ones(len(y), dtype=y.dtype, device=y.device), 1
        # In float32, as in the authors' code, so that a truncated step index equals theirs.
        times = torch.linspace(1, self.end or scores.sde.end, self.steps, dtype=torch.float32)
        for time in times.tolist():
            t = time * once
            for _ in range(self._corrections):
                score = scores.score(y, t, labels)
                y, mean = self._correct(scores, y, score, t, noise.normal(draw))
                draw += 1
            if self.predictor != "none":
                score = scores.score(y, t, labels)
                mean, spread = self._predict(scores, y, score, t)
                y = mean + expand(spread, y) * noise.normal(draw).to(y.dtype)
                draw += 1
        return scores.to_images(mean if self.denoise else y)

    @property
    def _corrections(self) -> int:
        return 0 if self.corrector == "none" else self.corrector_steps

    def _correct(
        self, scores: Scores, y: Tensor, score: Tensor, t: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the state and its mean after one correction (Algorithms 4 and 5)."""
        z, scale = fresh.to(y.dtype), 2 * scores.sde.correction(t, self.steps)
        if self.corrector == "ald":
            step = scale * (self.snr * scores.sde.std(t)) ** 2
        else:
            lengths = [v.flatten(1).norm(dim=1) for v in (z, score)]
            if self.norms == "batch":
                lengths = [v.mean().expand_as(v) for v in lengths]
            step = scale * (self.snr * lengths[0] / lengths[1]) ** 2
        step_sizes = expand(step, y)
        mean = y + step_sizes * score
        return mean + (2 * step_sizes).sqrt() * z, mean

    def _predict(
        self, scores: Scores, y: Tensor, score: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns mean (B, C, H, W) and deviation (B,) of the step back in time."""
        sde, steps = scores.sde, self.steps
        if self.predictor == "ancestral":
            return sde.ancestral(y, score, t, steps)
        if self.predictor == "euler_maruyama":
            drift, spread = sde.drift(y, t) / steps, sde.diffusion(t) / steps**0.5
        else:
            drift, spread = sde.discretize(y, t, steps)
        share = 0.5 if self.probability_flow else 1.0
        mean = y - drift + share * expand(spread**2, y) * score
        return mean, torch.zeros_like(spread) if self.probability_flow else spread
