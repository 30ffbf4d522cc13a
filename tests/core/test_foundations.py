"""Digests, pixels, evaluation counts, YAML places, the loader."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from cmbench.core.digests import digest
from cmbench.core.errors import UserError
from cmbench.core.files import atomic_file, sweep, write_text
from cmbench.core.images import NonFiniteSamplesError, to_images, to_pixels
from cmbench.core.loader import available, create, load
from cmbench.core.nfe import EvaluationCounter
from cmbench.core.yaml_source import read_yaml


def test_digest_is_of_the_value_not_of_its_writing():
    assert digest({"b": 1, "a": [1, 2.5]}) == digest({"a": [1, 2.5], "b": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    with pytest.raises(ValueError, match="JSON compliant"):
        digest(float("nan"))


def test_quantisation_rules_differ_by_half_a_level():
    x = torch.linspace(-0.9991, 0.9993, 1001, dtype=torch.float64).reshape(1, 1, 1, -1)
    rounded, cut = to_pixels(x, "round").int(), to_pixels(x, "truncate").int()
    assert torch.equal(rounded, ((x + 1) * 127.5 + 0.5).floor().clamp(0, 255).int())
    assert set((rounded - cut).unique().tolist()) == {0, 1}
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_pixels(to_images(every), "round"), every)


def test_nan_samples_are_named():
    x = torch.zeros(4, 1, 2, 2)
    x[2, 0, 1, 1] = torch.nan
    with pytest.raises(NonFiniteSamplesError, match="1 of 4 samples.*: 2"):
        to_pixels(x, "round")


def test_evaluations_are_rows_through_the_network():
    net = nn.Linear(2, 2)
    with EvaluationCounter([net]) as counter:
        net(torch.zeros(5, 2))
        net(input=torch.zeros(3, 2))
    net(torch.zeros(9, 2))
    assert (counter.rows, counter.per_image(4)) == (8, 2.0)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first")
    with pytest.raises(RuntimeError, match="stop"), atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", r":2: key 'a' stands twice"),
        ("a: 1\nb: [1, 2\n", r"not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", r"not valid YAML"),
    ],
)
def test_yaml_faults_have_a_place(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_yaml(path)


def test_unknown_component_names_the_nearest():
    with pytest.raises(UserError, match=r"no sampler named 'huen'. Did you mean 'heun'"):
        create("sampler", "huen")
    with pytest.raises(UserError, match=r"unknown key 'step'; did you mean 'steps'"):
        create("sampler", {"name": "heun", "step": 3})


def test_a_plugin_in_the_working_directory_is_found(tmp_path, monkeypatch):
    folder = tmp_path / "distances"
    folder.mkdir()
    (folder / "mine.py").write_text(
        '"""Mine: twice the l1."""\nimport torch\nfrom cmbench.api import Distance\n'
        '__all__ = ["Mine"]\nclass Mine(Distance):\n    factor: float = 2.0\n'
        "    def build(self, device):\n        return torch.nn.L1Loss()\n"
    )
    (folder / "broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    assert create("distance", {"name": "mine", "factor": 3}).spec() == {
        "name": "mine",
        "factor": 3.0,
    }
    assert {"mine", "broken", "l1"} <= {item.name for item in available("distance")}
    with pytest.raises(UserError, match=r"does not import: ModuleNotFoundError"):
        load("distance", "broken")


def test_what_a_killed_process_was_writing_is_swept_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    lost = tmp_path / f".a.json.{dead.pid}@{host}.x1_y.tmp"
    kept = [
        tmp_path / f".a.json.{os.getpid()}@{host}.x1_y.tmp",
        tmp_path / f".a.json.{dead.pid}@elsewhere.org.x1_y.tmp",
        tmp_path / ".a.tmp",
        tmp_path / "a.json",
    ]
    for file in (lost, *kept):
        file.touch()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
