"""The example package is built, installed apart, and its plugins are found and run."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "cmbench-example"


def _run(command: list[str], **env: str) -> str:
    done = subprocess.run(
        command, env=os.environ | env, text=True, capture_output=True, check=False,
        cwd=env.get("PLACE"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_package_of_plugins_is_built_installed_and_run(tmp_path: Path) -> None:
    python = sys.executable
    _run([python, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path),
          str(EXAMPLE)])  # fmt: skip
    wheel = next(tmp_path.glob("*.whl"))
    site, empty = tmp_path / "site", tmp_path / "empty"
    _run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site),
          str(wheel)])  # fmt: skip
    empty.mkdir()
    env = {"PYTHONPATH": str(site), "CMBENCH_CACHE": str(tmp_path / "cache"),
           "PLACE": str(empty), "OMP_NUM_THREADS": "1"}  # fmt: skip
    cli = [python, "-c", "from cmbench.cli import main; main()"]
    assert "holds to the contract" in _run([*cli, "models", "check", "two_greys"], **env)
    _run([*cli, "run", "two_greys", "--quiet"], **env)
    table = (empty / "results" / "two_greys" / "leaderboard.md").read_text()
    assert "two_greys" in table
