"""Reads and writes the statistics files of common evaluators, and recognises their formats.

cmbench: `mu/<layer>`, `sigma/<layer>`, `features/<layer>`; compact: float32 triangles, `made_of`.
adm: `arr_0` images, `mu`, `sigma`, `mu_s`, `sigma_s` (Dhariwal and Nichol, 2021). edm: `mu`,
`sigma` in .npz, or {"fid": {...}} in .pkl. pytorch-fid: `mu`, `sigma`. clean-fid: the same with a
float32 mean, compressed; or `feats`. score-sde: raw activations `pool_3` (Song et al., 2021).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cmbench.core.array_files import ArrayHeader, npz_headers, read_npz
from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError, unknown_name
from cmbench.core.files import atomic_file, new_file, parsing, sweep
from cmbench.metrics.base import Features, Moments, Reference
from cmbench.metrics.frechet.moments import moments_of_rows
from cmbench.metrics.statistics.file import (
    check_moments,
    checked_count,
    load_reference,
    read_made_of,
    save_compact_reference,
    save_reference,
)
from cmbench.metrics.statistics.pickled import read_pickled_arrays, write_pickled_arrays

__all__ = [
    "FORMATS",
    "Format",
    "Statistics",
    "open_statistics",
    "save_statistics",
    "statistics_path",
]

Format = Literal["cmbench", "compact", "adm", "edm", "pytorch-fid", "clean-fid", "score-sde"]
FORMATS: tuple[str, ...] = get_args(Format)
_PAIRS = {
    "pool": ("mu", "sigma"),
    "spatial": ("mu_s", "sigma_s"),
    "clip": ("mu_clip", "sigma_clip"),
}
_ACTIVATIONS = ("pool_3", "feats")
_PICKLES = (".pkl", ".pickle")


@dataclass(frozen=True)
class Statistics:
    """Content of a statistics file.

    Args:
        reference: Moments, and features where the file has them; its digest is the file's SHA-256.
        form: The recognised format: one of FORMATS, or "mu, sigma" where several evaluators
            write the same arrays.
        images: Shape of the images in the file (ADM's `arr_0`), or None.
        made_of: Data set, extractor and weights, where the file states them (cmbench's own).
        dtypes: Array name to its dtype.
    """

    reference: Reference
    form: str
    images: tuple[int, ...] | None = None
    made_of: dict[str, Any] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Returns what `cmbench stats show` prints: numbers that reveal a wrong file."""
        layers = {name: _moment_summary(m) for name, m in self.reference.moments.items()}
        for name, rows in (
            self.reference.features.layers if self.reference.features else {}
        ).items():
            layers.setdefault(name, {})["features"] = list(rows.shape)
        return {
            "format": self.form,
            "sha256": self.reference.digest,
            "layers": layers,
            "images": list(self.images) if self.images else None,
            "made_of": self.made_of or None,
            "arrays": self.dtypes,
        }


def open_statistics(path: Path, *, count: int = 0) -> Statistics:
    """Reads a statistics file of any known format.

    Args:
        path: .npz or .pkl.
        count: Number of images behind it, where the file does not state it (most don't); 0 if
            unknown.

    Raises:
        UserError: If the file is missing, truncated, of no known format or holds pickled objects,
            or if its arrays are not moments (shapes, symmetry, finiteness).
    """
    if path.suffix.lower() in _PICKLES:
        return _pickled(path, count)
    headers = npz_headers(path, "statistics file")
    with parsing(path, "a file of statistics"):
        if "digest" in headers or "made_of" in headers:
            return _own(path, set(headers))
        return _others(path, headers, count)


def statistics_path(path: Path, form: str, *, overwrite: bool) -> Path:
    """Returns the file that `save_statistics` writes for `path`.

    `.npz` is appended unless the name ends in .npz or .pkl, by which readers know the format; no
    suffix is removed, so that `stats.ema0.999` becomes `stats.ema0.999.npz`.

    Raises:
        UserError: For an unknown format, a pickle's name for a format that is not one, or an
            existing file that must not be overwritten.
    """
    if form not in FORMATS:
        raise unknown_name("format of statistics", form, FORMATS)
    pickled = path.suffix.lower() in _PICKLES
    if pickled and form != "edm":
        raise UserError(f"{path} is the name of a pickle, which {form} is not", expected=".npz")
    known = pickled or path.suffix.lower() == ".npz"
    return new_file(path if known else path.with_name(f"{path.name}.npz"), overwrite=overwrite)


def save_statistics(
    path: Path,
    reference: Reference,
    form: str,
    *,
    images: np.ndarray | None = None,
    made_of: dict[str, Any] | None = None,
    keep: int = 2000,
) -> Path:
    """Writes a reference in one of FORMATS; `edm` is a pickle where the path ends in .pkl.

    Args:
        path: The file; `.npz` is appended where it ends neither in .npz nor in .pkl.
        reference: The reference whose moments (and features) are written.
        form: The format.
        images: Images to store as `arr_0` in an adm file, uint8 (n, H, W, C).
        made_of: Data set, extractor and weights, stored in a compact file.
        keep: Number of feature rows stored in a compact file.

    Returns:
        The path of the file.

    Raises:
        UserError: For an unknown format, one that needs data which the reference lacks, or a name
            that belongs to another format.
    """
    target = statistics_path(path, form, overwrite=True)
    sweep(target.parent)
    _WRITERS[form](target, reference, images, made_of or {}, keep)
    return target


def _others(path: Path, headers: dict[str, ArrayHeader], count: int) -> Statistics:
    """Reads the statistics of another evaluator."""
    names = set(headers)
    if not (names & {"mu", "arr_0", *_ACTIVATIONS}):
        raise UserError(
            f"{path} has no statistics; it has: {', '.join(sorted(names))[:200] or 'nothing'}",
            expected="arrays mu and sigma, arr_0 (images), pool_3 or feats (activations)",
        )
    wanted = [n for pair in _PAIRS.values() for n in pair] + ["count", *_ACTIVATIONS]
    arrays = read_npz(path, wanted)
    count = checked_count(arrays.pop("count", count), path)
    dtypes = {name: str(array.dtype) for name, array in arrays.items()}
    images = headers.get("arr_0")
    dtypes |= {"arr_0": str(images.dtype)} if images else {}
    rows = next((arrays[n] for n in _ACTIVATIONS if n in arrays), None)
    features = _activations(rows, path) if rows is not None else None
    moments = _pairs(arrays, count, path)
    if features is not None and "pool" not in moments:
        moments["pool"] = moments_of_rows(features.layers["pool"])
    reference = Reference(file_sha256(path), features, moments)
    shape = images.shape if images else None
    return Statistics(reference, _form(names, arrays), shape, {}, dtypes)


def _own(path: Path, names: set[str]) -> Statistics:
    compact = "made_of" in names
    made_of = read_made_of(path) if compact else {}
    stored = load_reference(path)
    reference = Reference(file_sha256(path), stored.features, stored.moments)
    return Statistics(reference, "compact" if compact else "cmbench", None, made_of)


def _pickled(path: Path, count: int) -> Statistics:
    groups = read_pickled_arrays(path)
    count = checked_count(groups[""].get("num_images", count), path)
    spaces = {"pool": groups.get("fid", groups[""]), "fd_dinov2": groups.get("fd_dinov2", {})}
    moments = {
        layer: _symmetric_moments(arrays["mu"], arrays["sigma"], count, path)
        for layer, arrays in spaces.items()
        if "mu" in arrays and "sigma" in arrays
    }
    if not moments:
        raise UserError(f"{path} has no statistics", expected="a dictionary with mu and sigma")
    dtypes = {f"{g}/{n}": str(a.dtype) for g, arrays in groups.items() for n, a in arrays.items()}
    return Statistics(Reference(file_sha256(path), None, moments), "edm", None, {}, dtypes)


def _form(names: set[str], arrays: dict[str, np.ndarray]) -> str:
    if "arr_0" in names or "mu_s" in names:
        return "adm"
    if "pool_3" in names:
        return "score-sde"
    if "feats" in names or arrays["mu"].dtype == np.float32:
        return "clean-fid"
    return "mu, sigma (pytorch-fid, edm)"


def _pairs(arrays: dict[str, np.ndarray], count: int, path: Path) -> dict[str, Moments]:
    for mean, covariance in _PAIRS.values():
        if (mean in arrays) != (covariance in arrays):
            raise UserError(f"{path} has one of '{mean}' and '{covariance}' without the other")
    return {
        layer: _symmetric_moments(arrays[mean], arrays[covariance], count, path)
        for layer, (mean, covariance) in _PAIRS.items()
        if mean in arrays
    }


def _symmetric_moments(
    mean: np.ndarray, covariance: np.ndarray, count: int, path: Path
) -> Moments:
    """Converts a file's mean and covariance to float64, symmetric to the last bit.

    Raises:
        UserError: If they are not moments, or the covariance is not symmetric.
    """
    check_moments(mean, covariance, path)
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6):
        raise UserError(f"{path}: sigma is not symmetric")
    return Moments(mean, (covariance + covariance.T) / 2, count)


def _activations(rows: np.ndarray, path: Path) -> Features:
    if rows.dtype.kind != "f" or rows.ndim < 2 or len(rows) < 2 or not rows.size:
        raise UserError(f"{path} holds activations {rows.shape} of {rows.dtype}, not features")
    flat = rows.reshape(len(rows), -1)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if len(bad):
        raise UserError(f"{path}: activations of image {bad[0]} are not finite")
    return Features({"pool": flat.astype(np.float32)})


def _moment_summary(moments: Moments) -> dict[str, Any]:
    values = np.linalg.eigvalsh(moments.covariance)
    return {
        "width": len(moments.mean),
        "count": moments.count or None,
        "mean_norm": float(np.linalg.norm(moments.mean)),
        "trace": float(np.trace(moments.covariance)),
        "largest_eigenvalue": float(values[-1]),
        "smallest_eigenvalue": float(values[0]),
        "rank": int((values > values[-1] * len(values) * np.finfo(float).eps).sum()),
    }


def _pool(reference: Reference, path: Path) -> Moments:
    if "pool" not in reference.moments:
        raise UserError(f"no moments of layer 'pool' to write to {path}")
    return reference.moments["pool"]


def _write(path: Path, arrays: dict[str, np.ndarray], *, compressed: bool = False) -> None:
    with atomic_file(path) as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]


def _to_cmbench(path: Path, reference: Reference, *_: Any) -> None:
    save_reference(reference, path)


def _to_compact(
    path: Path, reference: Reference, images: Any, made_of: dict[str, Any], keep: int
) -> None:
    if not made_of:
        raise UserError(
            "a compact file says of what data and extractor it was made, which is not known here",
            fix="cmbench stats build DATASET --features NAME --format compact",
        )
    save_compact_reference(reference, path, made_of=made_of, keep=keep)


def _to_adm(path: Path, reference: Reference, images: np.ndarray | None, *_: Any) -> None:
    arrays = {} if images is None else {"arr_0": images}
    for layer, (mean, covariance) in _PAIRS.items():
        if layer in reference.moments:
            moments = reference.moments[layer]
            arrays[mean], arrays[covariance] = moments.mean, moments.covariance
    _pool(reference, path)
    _write(path, arrays | _count(reference, path))


def _to_edm(path: Path, reference: Reference, *_: Any) -> None:
    moments = _pool(reference, path)
    arrays: dict[str, np.ndarray] = {"mu": moments.mean, "sigma": moments.covariance}
    if path.suffix.lower() in _PICKLES:
        write_pickled_arrays(path, {"fid": arrays}, moments.count)
    else:
        _write(path, arrays | _count(reference, path))


def _to_clean_fid(path: Path, reference: Reference, *_: Any) -> None:
    moments = _pool(reference, path)
    arrays: dict[str, np.ndarray] = {
        "mu": moments.mean.astype(np.float32),
        "sigma": moments.covariance,
    }
    _write(path, arrays | _count(reference, path), compressed=True)


def _to_score_sde(path: Path, reference: Reference, *_: Any) -> None:
    if reference.features is None or "pool" not in reference.features.layers:
        raise UserError(
            "score-sde keeps raw activations, which moments can't be turned back into",
            fix="cmbench stats build DATASET --format score-sde",
        )
    _write(path, {"pool_3": reference.features.layers["pool"].astype(np.float32)})


def _count(reference: Reference, path: Path) -> dict[str, np.ndarray]:
    count = _pool(reference, path).count
    return {"count": np.array(count)} if count else {}


_WRITERS: dict[str, Callable[[Path, Reference, Any, dict[str, Any], int], None]] = {
    "cmbench": _to_cmbench,
    "compact": _to_compact,
    "adm": _to_adm,
    "edm": _to_edm,
    "pytorch-fid": _to_edm,
    "clean-fid": _to_clean_fid,
    "score-sde": _to_score_sde,
}
