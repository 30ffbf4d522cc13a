"""Hundreds of broken files, for every loader: taken, or a UserError that names the file."""

import pytest
from broken_files import broken, draws, intact_files, outcomes

from cmbench.core.tensor_files import read_safetensors
from cmbench.datasets.cifar10 import read_cifar_batches
from cmbench.datasets.fashion_mnist import read_idx
from cmbench.metrics.statistics.formats import open_statistics
from cmbench.released.diffusers_folder import find_diffusers
from cmbench.released.edm_pickle import read_edm
from cmbench.released.flax_msgpack import read_flax
from cmbench.released.torch_state import read_torch

REFUSED = {"UserError", "Refused"}


def statistics(path):
    open_statistics(path).summary()


def pipeline(path):
    find_diffusers(path.parent)


def batch(path):
    read_cifar_batches(path.parent, [path.name])


LOADERS = {
    "zipped.pt": read_torch,
    "stream.pt": read_torch,
    "network.pkl": read_edm,
    "checkpoint_1": read_flax,
    "weights.safetensors": read_safetensors,
    "config.json": pipeline,
    "moments.npz": statistics,
    "packed.npz": statistics,
    "adm.npz": statistics,
    "rows.npz": statistics,
    "own.npz": statistics,
    "compact.npz": statistics,
    "moments.pkl": statistics,
    "moments5.pkl": statistics,
    "data_batch_1": batch,
    "data_batch_2": batch,
    "images.idx": read_idx,
    "images.idx.gz": read_idx,
}
FILES = intact_files()


def put(folder, name, data):
    """A file called `name`, in a folder of its own that is otherwise a whole pipeline."""
    folder.mkdir(parents=True)
    if name == "config.json":
        (folder / "scheduler_config.json").write_text("{}")
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("name", LOADERS)
def test_broken_files_are_taken_or_refused_by_name(tmp_path, name):
    draw, cases = draws(f"{name} 1"), []
    for i in range(30):
        data, kind = broken(name, FILES, draw)
        cases.append((put(tmp_path / str(i), name, data), kind))
    paths = [put(tmp_path / "intact", name, FILES[name]), *(path for path, _ in cases)]
    intact, *found = outcomes(LOADERS[name], paths)
    assert intact[0] == "accepted", intact[1]
    for (path, kind), (outcome, text, _) in zip(cases, found, strict=True):
        assert outcome in REFUSED | {"accepted"}, f"{path} ({kind}): {outcome}: {text}"
        assert outcome == "accepted" or str(path.parent) in text, f"{kind}: {text}"
        assert "memory" not in text, f"{kind}: {text}"
    assert {o for o, _, _ in found} & REFUSED
