"""Metrics as short fast loops, without checks, intervals or exact ties: what care costs or gains.

`benchmarks/metrics.py` times them beside the peers.
"""

import numpy as np
import torch

__all__ = ["distance", "few_distance", "inception_score", "moments", "precision_recall"]

Rows = np.ndarray


def distance(mean: Rows, covariance: Rows, other_mean: Rows, other_covariance: Rows) -> float:
    """Frechet distance by a Cholesky factor and the eigenvalues of a symmetric product."""
    s, t = torch.from_numpy(covariance), torch.from_numpy(other_covariance)
    factor = torch.linalg.cholesky(t)
    values = torch.linalg.eigvalsh(factor.T @ s @ factor)
    root = float(values.clamp(min=0).sqrt().sum())
    gap = mean - other_mean
    return float(gap @ gap + np.trace(covariance) + np.trace(other_covariance)) - 2 * root


def few_distance(x: Rows, y: Rows) -> float:
    """Frechet distance of fewer rows than dimensions, by the eigenvalues of (A B^T)(A B^T)^T."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    gap = a.mean(0) - b.mean(0)
    a -= a.mean(0)
    b -= b.mean(0)
    cross, scale = a @ b.T, len(x) - 1
    nuclear = np.sqrt(np.linalg.eigvalsh(cross @ cross.T).clip(min=0)).sum()
    return float(gap @ gap + ((a**2).sum() + (b**2).sum() - 2 * nuclear) / scale)


def moments(x: Rows) -> tuple[Rows, Rows]:
    """Mean and covariance by shifted float32 products, summed in float64, 2,000 rows at once."""
    shift, width = x[:2000].mean(0), x.shape[1]
    total, scatter = np.zeros(width), np.zeros((width, width))
    for start in range(0, len(x), 2000):
        part = x[start : start + 2000] - shift
        total += part.sum(0, dtype=np.float64)
        scatter += part.T @ part
    mean = total / len(x)
    return shift + mean, (scatter - len(x) * np.outer(mean, mean)) / (len(x) - 1)


def precision_recall(x: Rows, y: Rows, k: int = 3, block: int = 2000) -> tuple[float, float]:
    """Precision and recall by blocks of float32 distances, one triangle within x and within y."""
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    own, other = _radii(a, k, block), _radii(b, k, block)
    inside, covered = torch.zeros(len(a), dtype=torch.bool), torch.zeros(len(b), dtype=torch.bool)
    for i in range(0, len(a), block):
        for j in range(0, len(b), block):
            squared = _squared(a[i : i + block], b[j : j + block])
            inside[i : i + block] |= (squared <= other[None, j : j + block]).any(1)
            covered[j : j + block] |= (squared <= own[i : i + block, None]).any(0)
    return float(inside.float().mean()), float(covered.float().mean())


def inception_score(logits: Rows, splits: int = 10, seed: int = 2020) -> float:
    """Inception Score of the rows in torch-fidelity's order, one split at a time."""
    order = np.random.RandomState(seed).permutation(len(logits))
    scores = []
    for part in np.array_split(order, splits):
        log = torch.log_softmax(torch.from_numpy(logits[part]), dim=1)
        p = log.exp()
        mean = p.mean(0, dtype=torch.float64)
        entropy = (p * log).sum(dtype=torch.float64) / len(part)
        scores.append(float((entropy - (mean * mean.log()).sum()).exp()))
    return float(np.mean(scores))


def _radii(x: torch.Tensor, k: int, block: int) -> torch.Tensor:
    near = torch.full((len(x), k + 1), float("inf"))
    for i in range(0, len(x), block):
        for j in range(i, len(x), block):
            squared = _squared(x[i : i + block], x[j : j + block])
            near[i : i + block] = _nearest(near[i : i + block], squared)
            if j > i:
                near[j : j + block] = _nearest(near[j : j + block], squared.T)
    return near[:, k]


def _nearest(known: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
    """The smallest of each row, itself among them, in order."""
    width = known.shape[1]
    return (
        torch.cat([known, squared.topk(width, largest=False).values], 1).sort(1).values[:, :width]
    )


def _squared(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.addmm((y * y).sum(1)[None], x, y.T, alpha=-2).add_((x * x).sum(1)[:, None])
