"""The Inception Score: its value. `error.py` beside it has its uncertainty.

With p_i = softmax of the logits of image i and q = mean p_i over the n images of a split,

    IS = mean over splits of exp( mean_i KL(p_i || q) )                                         (1)

(Salimans et al., 2016, https://arxiv.org/abs/1606.03498). With t = sum_i p_i = n q, the divergence
is

    mean_i KL(p_i || q) = [sum_ic p_ic log p_ic - sum_c t_c log t_c] / n + log n                (2)

Softmax is in float32, sums are in float64: 1e-8 of the score.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy

__all__ = ["Probabilities", "divergence", "inception_score", "split_indices"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_BLOCK = 64


@dataclass(frozen=True)
class Probabilities:
    """Class probabilities of the images of one split.

    Args:
        rows: Softmax p of each image, (n, C).
        negative_entropy: Sum of p log p over classes of each image, (n,).
        total: Sum t of p over images, (C,).
    """

    rows: NDArray[np.float32]
    negative_entropy: Array
    total: Array

    @classmethod
    def of(cls, logits: NDArray[np.float32], index: Index) -> "Probabilities":
        """Computes the softmax of the logits (N, C) of the images at `index`."""
        rows, entropies = np.empty((len(index), logits.shape[1]), np.float32), np.empty(len(index))
        total = np.zeros(logits.shape[1])
        # A few rows at a time stay in the processor's cache.
        for start in range(0, len(index), _BLOCK):
            block = slice(start, start + _BLOCK)
            logs = torch.log_softmax(torch.from_numpy(logits[index[block]]), dim=1)
            p = logs.exp()
            entropies[block] = (p * logs).sum(dim=1).numpy()
            rows[block] = p.numpy()
            total += p.sum(dim=0).numpy()
        return cls(rows, entropies, total)

    def score(self) -> float:
        """Score of this split, a term of equation 1."""
        t_log_t = float(xlogy(self.total, self.total).sum())
        entropy = self.negative_entropy.sum()
        return float(np.exp(divergence(entropy, t_log_t, len(self.rows))))


def inception_score(logits: NDArray[np.float32], splits: list[Index]) -> float:
    """Inception Score of logits (N, C), equation 1, without its error."""
    return float(np.mean([Probabilities.of(logits, index).score() for index in splits]))


def divergence(p_log_p: float | Array, t_log_t: float | Array, count: int) -> Array:
    """Mean divergence of n = `count` images from its two sums, equation 2."""
    return np.asarray(p_log_p / count - t_log_t / count + np.log(count))


def split_indices(count: int, splits: int, seed: int) -> list[Index]:
    """Indices of the images of each split: torch-fidelity's permutation, cut at i N / splits."""
    # The legacy generator, since the permutation must be torch-fidelity's.
    order = np.random.RandomState(seed).permutation(count)
    edges = [i * count // splits for i in range(splits + 1)]
    return [order[a:b] for a, b in pairwise(edges)]
