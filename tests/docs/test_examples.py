"""The script and the notebook of examples/ run as they stand there."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT, NOTEBOOK = EXAMPLES / "few_steps.py", EXAMPLES / "first_look.ipynb"


def test_the_method_fits_on_a_screen_and_uses_the_public_api_alone():
    lines = SCRIPT.read_text().splitlines()
    assert len(lines) <= 60
    assert [line for line in lines if "cmbench" in line and "import" in line] == ["import cmbench"]


def test_few_steps_prints_a_score_for_each_model_and_nfe_and_draws_the_strip(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--count", "8", "--out", "strip.png"], cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()[1:-1]]
    assert [(name.partition("/")[0], nfe) for name, nfe, *_ in rows] == [
        (family, nfe) for family in ("edm", "consistency") for nfe in ("1", "2", "35")
    ]
    for _, _, value, interval in rows:
        low, high = interval.strip("[]").split(", ")
        assert float(low) < float(value) < float(high)
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.height > 6 * 32
        assert strip.width > 8 * 32


def test_the_notebook_is_shipped_without_outputs_and_compiles():
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 5
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        compile("".join(cell["source"]), cell["id"], "exec")


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("nbclient") and find_spec("ipykernel")),
    reason="no nbclient or ipykernel here: pip install -e '.[test]'",
)
def test_the_notebook_runs_in_a_kernel_of_its_own(tmp_path):
    """In another process, where warnings of Jupyter's packages are not this project's errors."""
    code = (
        "import sys, nbformat; from nbclient import NotebookClient; "
        "notebook = nbformat.read(sys.argv[1], as_version=4); "
        "nbformat.validate(notebook); "
        "NotebookClient(notebook, timeout=280, kernel_name='python3').execute(); "
        "nbformat.write(notebook, sys.argv[2])"
    )
    target = tmp_path / "done.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", code, str(NOTEBOOK), str(target)], cwd=EXAMPLES, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    cells = {c["id"]: c for c in json.loads(target.read_text("utf-8"))["cells"]}
    assert "image/png" in cells["student"]["outputs"][-1]["data"]
    assert "1 or 3" in "".join(cells["refused"]["outputs"][0]["text"])
    assert "image/png" in cells["plot"]["outputs"][-1]["data"]
