"""Statistics files: npz with mu, sigma (pytorch-fid, EDM, clean-fid) and mu_s, sigma_s (ADM).

OpenAI's reference batches hold mu, sigma over pool features and mu_s, sigma_s over the spatial
ones. None says how many images it was made from; TTUR's and clean-fid's means are float32.
"""

import zipfile
from pathlib import Path

import numpy as np

from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file
from cmbench.metrics.base import Moments, Reference

__all__ = ["checked_moments", "read_statistics", "write_statistics"]

_LAYERS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}


def read_statistics(path: Path, *, count: int = 0) -> Reference:
    """A reference with the file's moments; its digest is the file's SHA-256.

    Args:
        path: The npz file.
        count: Images it was made from; 0 if unknown. The file's own `count` goes first.

    Raises:
        UserError: If it is missing, not such a file, or its arrays are not moments.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = [k for pair in _LAYERS.values() for k in pair] + ["count"]
            arrays = {key: file[key] for key in wanted if key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"can't read the statistics {path}: {error}") from None
    if "mu" not in arrays or "sigma" not in arrays:
        raise UserError(f"{path} has no statistics", expected="npz with arrays 'mu' and 'sigma'")
    count = int(arrays.get("count", count))
    moments = {
        layer: checked_moments(arrays[mu], arrays[sigma], count, path)
        for layer, (mu, sigma) in _LAYERS.items()
        if mu in arrays and sigma in arrays
    }
    return Reference(file_sha256(path), None, moments)


def write_statistics(reference: Reference, path: Path) -> None:
    """Writes mu, sigma (and mu_s, sigma_s) in float64, as pytorch-fid, EDM and ADM read them.

    Raises:
        UserError: If the reference has no moments of `pool`.
    """
    if "pool" not in reference.moments:
        raise UserError("the reference has no moments of layer 'pool' to write")
    arrays: dict[str, np.ndarray] = {"count": np.array(reference.moments["pool"].count)}
    for layer, (mu, sigma) in _LAYERS.items():
        if layer in reference.moments:
            found = reference.moments[layer]
            arrays[mu], arrays[sigma] = found.mean, found.covariance
    with atomic_file(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def checked_moments(mean: np.ndarray, covariance: np.ndarray, count: int, path: Path) -> Moments:
    """A file's mean and covariance in float64, symmetric to the last bit.

    Raises:
        UserError: If they are not floats, don't fit, are not finite or not symmetric.
    """
    if mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise UserError(f"{path}: mu and sigma are not floating-point arrays")
    if mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
        raise UserError(f"{path}: mu {mean.shape} and sigma {covariance.shape} don't fit")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path}: statistics that are not finite")
    if not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6):
        raise UserError(f"{path}: sigma is not symmetric")
    return Moments(mean, (covariance + covariance.T) / 2, count)
