"""Every Python block of the documentation is executed, page by page, in the order of the page.

A block whose first line names a component's file is that file: it is written, found and made by the
loader. Those of docs/plugins.md make one suite: tests/docs/test_plugins_page.py.
"""

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cmbench.cli.main import app
from cmbench.core.loader import FOLDERS, create

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"plugins.md"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "models").glob("*/README.md")), *sorted((ROOT / "examples").rglob("*.md"))]  # fmt: skip
KINDS = {folder: kind for kind, folder in FOLDERS.items()}


def _blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


WITH_BLOCKS = [page for page in PAGES if _blocks(page) and page.name not in ELSEWHERE]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that looks like a clone, in which what a page writes is lost."""
    for name in ("suites", "results"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "models").mkdir()  # a page's own models are written beside the shipped ones
    for family in (ROOT / "models").iterdir():
        (tmp_path / "models" / family.name).symlink_to(family)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_there_are_pages_with_blocks():
    assert {page.name for page in WITH_BLOCKS} >= {
        "README.md", "checkpoints.md", "concepts.md", "interop.md", "notebook.md"
    }  # fmt: skip


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, place):
    if "digits.npz" in page.read_text("utf-8"):
        _statistics(place)
    names: dict[str, object] = {"__name__": "printed"}
    for i, text in enumerate(_blocks(page)):
        file = re.match(r".*# ((\w+)/(\w+)\.py)\n", text)
        if file is None:
            exec(compile(text, f"{page.name}, block {i + 1}", "exec"), names)
            continue
        path = place / file[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        made = create(KINDS[file[2]], file[3])
        if file[2] == "distances":
            x, y = torch.rand(2, 3, 1, 8, 8)
            apart = made.build(torch.device("cpu"))(x, y)
            assert apart.shape == (3,)
            assert bool((apart > 0).all())


def _statistics(place: Path) -> None:
    """digits.npz, which a page has had `cmbench stats build` write before its Python reads it."""
    args = ["stats", "build", "digits", "--out", str(place / "digits.npz"), "--features", "pixels"]
    assert CliRunner().invoke(app, [*args, "-q", "--device", "cpu"]).exit_code == 0
