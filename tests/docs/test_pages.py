"""Pages that are made from the code are up to date, and messages they print are the real ones."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from cmbench.core.errors import UserError
from cmbench.core.loader import available, load
from cmbench.core.yaml_source import read_yaml, validate
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import Suite

DOCS = Path(__file__).parents[2] / "docs"


def test_the_command_line_page_is_what_the_commands_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from write_cli_reference import cli_reference

    assert (DOCS / "cli.md").read_text() == cli_reference(), "python docs/write_cli_reference.py"
    sys.modules.pop("write_cli_reference")


def test_the_page_of_a_suite_s_keys_is_what_its_models_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from write_suite_reference import suite_reference

    page = (DOCS / "suite.md").read_text()
    assert page == suite_reference(), "python docs/write_suite_reference.py"
    sys.modules.pop("write_suite_reference")


def test_every_model_that_a_suite_can_hold_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from write_suite_reference import SECTIONS

    assert set(_models(Suite)) == set(SECTIONS)
    sys.modules.pop("write_suite_reference")


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that occur in a type, at any depth."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _models(field.annotation)
    for part in get_args(kind):
        yield from _models(part)


def test_labels_are_filled_in_as_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(
        """
suite: labels
dataset: digits
images: {count: 8}
features: pixels
metrics: [frechet_distance]
runs:
  - {model: oracle/digits, label: "{model} by {sampler}", sampler: [heun, ddim], nfe: 3}
  - model: consistency/digits
    label: "{objective}, {distance}"
    train: {objective: {name: ct, s0: 2}, distance: [l1, l2]}
    nfe: 1
  - {model: oracle/digits, sampler: [heun, dpmpp_2m], nfe: 5}
"""
    )
    source = read_yaml(path)
    assert [cell.label for cell in make_plan(validate(source, Suite), source).cells] == [
        "oracle/digits by heun", "oracle/digits by ddim", "ct, l1", "ct, l2",
        "oracle/digits heun", "oracle/digits dpmpp_2m",
    ]  # fmt: skip


def test_the_map_for_language_models_is_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from write_llms_txt import SUMMARIES, llms_txt

    assert (DOCS / "llms.txt").read_text() == llms_txt(), "python docs/write_llms_txt.py"
    assert set(SUMMARIES) == {page.stem for page in DOCS.glob("*.md")} - {"index"}
    sys.modules.pop("write_llms_txt")


def test_the_table_of_makes_has_every_sampler_of_another_kind() -> None:
    page = (DOCS / "checkpoints.md").read_text().partition("## `makes`")[2].partition("## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.M)
    told = {word: set(re.findall(r"`(\w+)`", names)) for word, names in rows}
    known: dict[str, set[str]] = {}
    for item in available("sampler"):
        known.setdefault(load("sampler", item.name).accepts, set()).add(item.name)
    assert told.keys() == known.keys()
    assert all(told[word] == known[word] for word in known if word != "denoiser")
    assert told["denoiser"] <= known["denoiser"]


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
