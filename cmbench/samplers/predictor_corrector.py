r"""Predictor-corrector sampling of score SDEs: at each time a Langevin correction, then a step.

Score SDE (https://arxiv.org/abs/2011.13456, appendix G). Times are even from 1 to the process's
end. The corrector comes first, as the authors' code has it, and the last noise is left out.
NFE = steps * (1 + corrector_steps), the corrector's only where there is one.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cmbench.core.random import Noise
from cmbench.denoise.base import Denoiser, expand
from cmbench.denoise.sde_denoiser import Scores
from cmbench.samplers._ode import start
from cmbench.samplers.base import Sampler

__all__ = ["PredictorCorrector"]


class PredictorCorrector(Sampler):
    """The defaults are the authors' for VE at 32 pixels; for VP and sub-VP theirs are
    `euler_maruyama` and no corrector. A denoiser that is no score SDE is taken for a VE process.

    The Langevin corrector's step is 2 a (snr |z| / |score|)^2. The authors take both norms as
    means over the batch, by which an image depends on its neighbours; here they are each image's
    own. A step that depends on the state widens the variance by about 2 / d for d values an image:
    nothing at 3 x 32 x 32, a few hundredths at 8 x 8. `norms: batch` is theirs, and forfeits that
    an image is the same in any batch; `ald` needs no norms.
    """

    steps: int = Field(default=1000, ge=1, description="times, the first 1, the last the end")
    predictor: Literal["reverse_diffusion", "ancestral", "euler_maruyama", "none"] = (
        "reverse_diffusion"
    )
    corrector: Literal["langevin", "ald", "none"] = "langevin"
    corrector_steps: int = Field(default=1, ge=1, description="corrections at each time")
    snr: float = Field(default=0.16, gt=0, description="signal-to-noise ratio of a correction")
    norms: Literal["image", "batch"] = Field(
        default="image", description="of the corrector's step"
    )
    probability_flow: bool = Field(default=False, description="half the score, no noise")
    denoise: bool = Field(default=True, description="leave out the last predictor's noise")
    end: float | None = Field(
        default=None, gt=0, lt=1, description="last t, the process's if none"
    )

    @model_validator(mode="after")
    def _possible(self) -> "PredictorCorrector":
        if self.predictor == "none" and self.corrector == "none":
            raise ValueError("predictor and corrector can't both be none")
        if self.predictor == "ancestral" and self.probability_flow:
            raise ValueError("the ancestral predictor has no probability flow")
        return self

    def nfe(self) -> int:
        """One evaluation a predictor's step and a correction."""
        return self.steps * (int(self.predictor != "none") + self._corrections)

    def sample(self, denoiser: Denoiser, noise: Noise, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), float64; draws are numbered as they are made, the start's is 0.

        Raises:
            UserError: If the process has no such step, or needs more steps.
        """
        scores = Scores(denoiser)
        y = mean = start(noise, scores.sde.prior_std())
        once, draw = torch.ones(len(y), dtype=y.dtype, device=y.device), 1
        # In float32 as the authors have them: an index cut off from them must be theirs.
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
        """The state and its mean after one correction."""
        z, scale = fresh.to(y.dtype), 2 * scores.sde.correction(t, self.steps)
        if self.corrector == "ald":
            step = scale * (self.snr * scores.sde.std(t)) ** 2
        else:
            lengths = [v.flatten(1).norm(dim=1) for v in (z, score)]
            if self.norms == "batch":
                lengths = [v.mean().expand_as(v) for v in lengths]
            step = scale * (self.snr * lengths[0] / lengths[1]) ** 2
        wide = expand(step, y)
        mean = y + wide * score
        return mean + (2 * wide).sqrt() * z, mean

    def _predict(
        self, scores: Scores, y: Tensor, score: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean (B, C, H, W) and deviation (B,) of the step back in time."""
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
