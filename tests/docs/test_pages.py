"""Pages that are made from the code are up to date, and messages they print are the real ones."""

import re
import sys
from pathlib import Path

import pytest

from cmbench.core.errors import UserError
from cmbench.core.yaml_source import read_yaml, validate
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import Suite

DOCS = Path(__file__).parents[2] / "docs"


def test_the_command_line_page_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from write_cli_reference import cli_reference

    assert (DOCS / "cli.md").read_text() == cli_reference(), "python docs/write_cli_reference.py"
    sys.modules.pop("write_cli_reference")


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.stem in ("index",) or page.stem in index or page.stem.startswith("families-")


def test_the_tutorial_s_mistake_is_told_as_it_says(tmp_path: Path) -> None:
    text = (DOCS / "tutorial.md").read_text()
    suite = re.search(r"```yaml\n(suite: first.*?)```", text, re.S)
    assert suite is not None
    path = tmp_path / "first.yaml"
    path.write_text(suite[1].replace("heun", "huen", 1))
    source = read_yaml(path)
    with pytest.raises(UserError) as caught:
        make_plan(validate(source, Suite), source)
    told = str(caught.value).splitlines()[0].replace(f"{tmp_path}/", "")
    assert f"error: {told}\n" in text
