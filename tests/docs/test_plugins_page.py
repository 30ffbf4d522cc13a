"""The examples of docs/plugins.md, as they stand there, make one suite that runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


def _write_files(folder: Path) -> list[str]:
    names = []
    for name, text in re.findall(
        r"^```\w+\n# (\S+\.\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        names.append(name)
    return names


def _cmbench(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("CMBENCH_")}
    env |= {"CMBENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    code = "from cmbench.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args], cwd=folder, env=env, text=True, capture_output=True,
        check=False,
    )  # fmt: skip


def test_every_kind_of_part_is_shown_and_the_suite_runs(tmp_path: Path) -> None:
    names = _write_files(tmp_path)
    kinds = {name.split("/")[0] for name in names}
    assert kinds == {
        "models", "samplers", "metrics", "features", "distances", "objectives", "nets",
        "degradations", "datasets", "suites",
    }  # fmt: skip
    done = _cmbench(tmp_path, "run", "suites/stripes.yaml", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == 3
    table = (tmp_path / "results" / "stripes" / "leaderboard.md").read_text()
    assert "FD-edges" in table
    assert "mean gap" in table


def test_parts_that_the_suite_does_not_use_work_too(tmp_path: Path) -> None:
    _write_files(tmp_path)
    code = """
import torch
from cmbench.core.loader import create
from cmbench.core.random import Noise
d = create("distance", {"name": "charbonnier", "width": 0.1}).build(torch.device("cpu"))
x, y = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
assert d(x, y).shape == (3,) and float(d(x, x).abs().max()) < 1e-7
fade = create("degradation", "fade")
assert torch.equal(fade.degrade(x, torch.zeros(3, dtype=torch.long)), x)
last = fade.degrade(x, torch.full((3,), fade.levels))
assert torch.equal(last, fade.start(Noise(0, range(3), (1, 8, 8))))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_model_of_the_page_holds_to_the_contract(tmp_path: Path) -> None:
    _write_files(tmp_path)
    done = _cmbench(tmp_path, "models", "check", "stripes/small")
    assert done.returncode == 0, done.stdout
