"""Every suite and recipe printed in the documentation is one that cmbench takes."""

import re
from pathlib import Path

import pytest

from cmbench.core.yaml_source import read_yaml, validate
from cmbench.suite.plan import make_plan
from cmbench.suite.spec import Suite
from cmbench.train.recipe import read_recipe

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "plugins.md"),
]
BLOCKS = [
    pytest.param(text, id=f"{page.name}-{i}")
    for page in PAGES
    for i, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S))
    if re.match(r"(#.*\n)*(suite|recipe):", text)
]


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("text", BLOCKS)
def test_a_printed_suite_or_recipe_is_taken(text: str, tmp_path: Path) -> None:
    path = tmp_path / "printed.yaml"
    path.write_text(text)
    if "\nruns:" in text:
        source = read_yaml(path)
        plan = make_plan(validate(source, Suite), source)
        assert plan.cells
        assert all(cell.pending is None for cell in plan.cells)
    else:
        read_recipe(path)
