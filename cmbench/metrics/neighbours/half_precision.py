"""Precision and recall in float16 arithmetic, after the evaluator of Dhariwal and Nichol (2021).

Inputs, norms, products and squared distances are rounded to float16, and a row on the rim counts
as inside. Squared distances of some hundreds then have steps of 0.25 to 0.5, so that ties occur:
about two points more on Inception's features than in exact arithmetic
(https://arxiv.org/abs/2105.05233).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmbench.metrics._range import largest
from cmbench.metrics.base import MetricError
from cmbench.metrics.neighbours.occupancy import KEPT, Holders, HoldersSum

__all__ = ["half_precision_hits"]

_BLOCK = 1024
_LEAST, _MOST = 2.0**-14, 65504.0
"""Range of float16's normal numbers."""


def half_precision_hits(
    generated: NDArray[np.float32], reference: NDArray[np.float32], k: int
) -> tuple[NDArray[np.bool_], Holders]:
    """Finds which generated rows are in a reference ball, and which balls hold each reference row.

    Raises:
        MetricError: If float16 can't hold the features.
    """
    for owner, rows in (("generated", generated), ("reference", reference)):
        size = largest(rows)
        if size and not _LEAST <= size <= _MOST:
            raise MetricError(
                f"float16 can't hold {owner} features of at most {size:.3g}: "
                f"{_LEAST:.2g} to {_MOST:g} are needed, or `arithmetic: exact`"
            )
    x, y = (torch.from_numpy(rows).half().float() for rows in (generated, reference))
    radii_x, radii_y = _radii(x, k), _radii(y, k)
    precision = torch.zeros(len(x), dtype=torch.bool)
    recall = HoldersSum(len(x), len(y), kept=KEPT)
    for i in range(0, len(x), _BLOCK):
        squared = _squared(x[i : i + _BLOCK], y)
        precision[i : i + _BLOCK] = (squared <= radii_y[None, :]).any(1)
        recall.add((squared <= radii_x[i : i + _BLOCK, None]).numpy(), i, 0)
    return precision.numpy(), recall.holders()


def _radii(rows: Tensor, k: int) -> Tensor:
    blocks = [_squared(rows[i : i + _BLOCK], rows) for i in range(0, len(rows), _BLOCK)]
    # The row itself is one of the k + 1 nearest, as in the original evaluator.
    return torch.cat([block.kthvalue(k + 1, dim=1).values for block in blocks])


def _squared(x: Tensor, y: Tensor) -> Tensor:
    norms_x = (x * x).sum(1).half().float()[:, None]
    norms_y = (y * y).sum(1).half().float()[None, :]
    product = (x @ y.T).half().float()
    squared = ((norms_x - 2 * product).half().float() + norms_y).half().float().clamp(min=0)
    if bool(torch.isfinite(squared).all()):
        return squared
    exact = (x * x).sum(1)[:, None] - 2 * (x @ y.T) + (y * y).sum(1)[None, :]
    return exact.clamp(min=0)
