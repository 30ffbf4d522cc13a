r"""Conversion between network predictions: noise, clean image, v, or score of the noisy image.

The state is x = a x0 + s eps; sigma-space has a = 1, s = sigma, a VP process a = 1 / sqrt(1 +
sigma^2), s = a sigma. With D the estimate of x0:

    eps = (x - a D) / s,    score = -eps / s,    v = a eps - s D,    D = (a x - s v) / (a^2 + s^2)

DDPM (https://arxiv.org/abs/2006.11239), score (https://arxiv.org/abs/1907.05600), v
(https://arxiv.org/abs/2202.00512, appendix D; there a^2 + s^2 = 1).
"""

from typing import Literal

from torch import Tensor

from cmbench.denoise.base import expand

__all__ = ["Predicted", "clean_from", "convert", "predicted_from", "vp_scales"]

Predicted = Literal["eps", "x0", "v", "score"]


def vp_scales(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Scales a and s of a VP process at noise levels sigma, of sigma's shape."""
    a = (1 + sigma**2).rsqrt()
    return a, a * sigma


def clean_from(output: Tensor, x: Tensor, a: Tensor, s: Tensor, kind: Predicted) -> Tensor:
    """Returns the estimate of x0 (B, C, H, W) from a network's prediction at the state x.

    Args:
        output: The prediction (B, C, H, W).
        x: The state (B, C, H, W).
        a: Scale of the clean image in it, (B,).
        s: Standard deviation of the noise in it, (B,).
        kind: Kind of the prediction.
    """
    a, s = expand(a, x), expand(s, x)
    if kind == "x0":
        return output
    if kind == "v":
        return (a * x - s * output) / (a**2 + s**2)
    eps = -s * output if kind == "score" else output
    return (x - s * eps) / a


def predicted_from(clean: Tensor, x: Tensor, a: Tensor, s: Tensor, kind: Predicted) -> Tensor:
    """Returns the prediction of this kind that corresponds to the estimate `clean` of x0."""
    a, s = expand(a, x), expand(s, x)
    if kind == "x0":
        return clean
    eps = (x - a * clean) / s
    if kind == "v":
        return a * eps - s * clean
    return -eps / s if kind == "score" else eps


def convert(
    output: Tensor, x: Tensor, a: Tensor, s: Tensor, source: Predicted, target: Predicted
) -> Tensor:
    """Converts a prediction of one kind to another kind, at the same state."""
    return predicted_from(clean_from(output, x, a, s, source), x, a, s, target)
