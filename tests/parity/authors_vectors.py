"""Where the authors' parity vectors lie, and how an array of ours is held against one of theirs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

PLACE = Path(__file__).resolve().parents[3] / "shared" / "parity"


class Vectors:
    """One folder of vectors: `meta`, arrays by name, and comparison within their tolerance."""

    def __init__(self, name, file="io.npz"):
        self.folder = PLACE / name
        if not self.folder.is_dir():
            pytest.skip(f"the authors' vectors are not beside the repository ({self.folder})")
        self.meta = json.loads((self.folder / "meta.json").read_text("utf-8"))
        with np.load(self.folder / file, allow_pickle=False) as arrays:
            self.arrays = dict(arrays)

    def __getitem__(self, name):
        return torch.from_numpy(self.arrays[name])

    def __contains__(self, name):
        return name in self.arrays

    def maybe(self, name):
        """The array, or None where the set has none of that name."""
        return torch.from_numpy(self.arrays[name]) if name in self.arrays else None

    def agree(self, name, got):
        """Asserts the array's own `atol`, and `atol_per_item` where it has one."""
        want, told = self.arrays[name], self.meta["arrays"][name]
        got = np.asarray(got.detach() if isinstance(got, torch.Tensor) else got)
        assert got.shape == want.shape, name
        if "atol" not in told:
            assert np.array_equal(got, want), name
            return
        error = np.abs(got.astype(np.float64) - want.astype(np.float64))
        assert error.max() <= told["atol"], f"{name}: {error.max():.3g} > {told['atol']}"
        if told.get("atol_per_item") is not None:
            worst = error.reshape(len(error), -1).max(1)
            allowed = np.array(told["atol_per_item"])
            assert (worst <= allowed).all(), f"{name}: {worst} > {allowed}"


class Recorded:
    """Records the noise level of each call of a denoiser."""

    def __init__(self, denoiser):
        self.sigmas, self.states, self.outputs = [], [], []
        denoiser.register_forward_hook(self._note)

    def _note(self, module, args, output):
        self.states.append(args[0].float())
        self.sigmas.append(float(args[1].reshape(-1)[0]))
        self.outputs.append(output.float())
