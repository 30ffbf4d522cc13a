"""The example package is built, installed into a fresh environment, and its plugins run there."""

import os
import subprocess
import sys
import venv
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "cmbench-example"


def _run(command: list[str], **env: str) -> str:
    done = subprocess.run(
        command, env=os.environ | env, text=True, capture_output=True, check=False,
        cwd=env.get("PLACE"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _fresh_environment(place: Path) -> str:
    """A virtual environment of its own, which sees cmbench and its dependencies; its Python."""
    venv.create(place, with_pip=False)
    site = next(place.glob("lib/python3*/site-packages"))
    (site / "cmbench.pth").write_text("\n".join(p for p in sys.path if p and Path(p).is_dir()))
    return str(place / "bin" / "python")


def test_a_package_of_plugins_is_built_installed_and_run(tmp_path: Path) -> None:
    python = sys.executable
    _run([python, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path),
          str(EXAMPLE)])  # fmt: skip
    wheel = next(tmp_path.glob("*.whl"))
    fresh, empty = _fresh_environment(tmp_path / "fresh"), tmp_path / "empty"
    _run([python, "-m", "pip", "--python", fresh, "install", "--quiet", "--no-deps", str(wheel)])
    empty.mkdir()
    env = {"CMBENCH_CACHE": str(tmp_path / "cache"), "PLACE": str(empty), "OMP_NUM_THREADS": "1"}
    cli = [fresh, "-c", "from cmbench.cli.main import main; main()"]
    where = (
        "import importlib.metadata as m; print(m.distribution('cmbench-example').locate_file(''))"
    )
    assert str(tmp_path / "fresh") in _run([fresh, "-c", where], **env)
    assert "satisfies the contract" in _run([*cli, "models", "check", "two_greys"], **env)
    _run([*cli, "run", "two_greys", "--quiet"], **env)
    table = (empty / "results" / "two_greys" / "leaderboard.md").read_text()
    assert "two_greys" in table
