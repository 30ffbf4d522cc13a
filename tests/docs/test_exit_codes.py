"""Every exit code of the table in docs/cli.md, from the command line itself."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAN = '''"""Makes no number."""

import torch

from cmbench.api import Denoiser, Model

__all__ = ["Nan"]


class Nan(Model):
    sampler = {"name": "euler"}

    def build(self):
        return _Nan()


class _Nan(Denoiser):
    def __init__(self):
        super().__init__((1, 8, 8))
        self.net = _Network()

    def forward(self, x, sigma, labels=None):
        return self.net(x)


class _Network(torch.nn.Module):
    def forward(self, x):
        return x * float("nan")
'''
SUITE = """\
suite: tried
dataset: digits
images: {count: 8}
features: %s
metrics: [frechet_distance]
runs:
  - {model: %s, nfe: 2, sampler: euler}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "nan.py").write_text(NAN)
    for name, features, model in (
        ("good", "pixels", "oracle/digits"),
        ("failing", "pixels", "nan"),
        ("waiting", "clip", "oracle/digits"),
        ("mistaken", "pixels", "orcale/digits"),
    ):
        (tmp_path / f"{name}.yaml").write_text(SUITE % (features, model))
    return tmp_path


def _started(place: Path, *args: str) -> subprocess.Popen[str]:
    env = os.environ | {"CMBENCH_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "cmbench", *args], cwd=place, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _ended(place: Path, *args: str) -> tuple[int, str]:
    with _started(place, *args) as running:
        told, said = running.communicate(timeout=240)
        assert "Traceback" not in told + said
        return running.returncode, told + said


def test_the_table_has_these_codes():
    table = (ROOT / "docs" / "cli.md").read_text().partition("## Output")[0]
    assert re.findall(r"^\| (\d+) \|", table, re.M) == ["0", "1", "2", "3", "130"]


def test_each_code_is_given_where_the_table_says(place):
    assert _ended(place, "run", "good.yaml", "-q", "--no-report")[0] == 0
    code, said = _ended(place, "run", "failing.yaml", "-q", "--no-report")
    assert code == 1, said
    assert "1 failed" in said
    assert _ended(place, "models", "check", "nan")[0] == 1
    assert _ended(place, "run", "waiting.yaml", "-q", "--no-report")[0] == 0
    assert _ended(place, "run", "waiting.yaml", "-q", "--no-report", "--strict")[0] == 3
    code, said = _ended(place, "run", "mistaken.yaml")
    assert code == 2
    assert "Did you mean 'oracle'" in said or "did you mean" in said.lower()
    assert _ended(place, "run", "--no-such-option")[0] == 2


def test_an_interrupt_is_130(place):
    (place / "long.yaml").write_text(
        SUITE % ("pixels", "edm/digits") + "    train: {images: 1280000}\n"
    )
    text = (place / "long.yaml").read_text()
    fixed = text.replace(
        "  - {model: edm/digits, nfe: 2, sampler: euler}\n    train",
        "  - model: edm/digits\n    nfe: 2\n    sampler: euler\n    train",
    )
    (place / "long.yaml").write_text(fixed)
    with _started(place, "run", "long.yaml", "--no-report") as running:
        for line in running.stderr:
            if "train edm/digits" in line:
                break
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=240)
    assert running.returncode == 130
    assert "run the same command again" in said
