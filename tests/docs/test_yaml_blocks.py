"""Every YAML that the documentation prints is one that cmbench takes, fragments inside a whole one.

Those of docs/plugins.md name their files and make one suite: tests/docs/test_plugins_page.py.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_commands import parse_command

from cmbench.assets.catalogue import Asset, catalogue
from cmbench.cards.cards import find_card
from cmbench.cards.open import open_card
from cmbench.core.yaml_source import read_yaml, validate
from cmbench.suite.planner import Plan, make_plan
from cmbench.suite.spec import Suite
from cmbench.train.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name != "plugins.md"),
    *sorted((ROOT / "models").glob("*/README.md")),
]
BLOCKS = [
    pytest.param(text, id=f"{page.name}-{i}")
    for page in PAGES
    for i, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S))
]
INLINE = sorted(
    {
        text
        for page in PAGES
        for text in re.findall(r"(?<!`)`(\w+: [^`\n]+)`(?!`)", page.read_text())
        if text.partition(":")[0] in {*Suite.model_fields, *Recipe.model_fields}
        and not re.search(r"family/card|FOLDER", text)
    }
)
SUITE: dict[str, Any] = {
    "suite": "printed", "dataset": "digits", "images": {"count": 16},
    "features": "digits_classifier", "metrics": ["frechet_distance"],
    "runs": [{"model": "oracle/digits", "nfe": 3}],
}  # fmt: skip
RECIPE = {
    "recipe": "printed", "dataset": "digits", "objective": "edm", "optimiser": {"name": "adam"},
    "model": {"name": "edm", "shape": [1, 8, 8], "network": {"name": "compact_unet"}},
    "batch": 8, "images": 64,
}  # fmt: skip
# What a fragment names and no fresh clone has.
FILES = (
    "my/model.pt", "my_run/checkpoint.pt", "path/to/best_with_denoise.pth",
    "path/to/checkpoint_8.pth",
)  # fmt: skip
# The adapter that docs/checkpoints.md writes, which its YAML names.
ADAPTER = re.search(
    r"^```python\n# (models/\S+)\n(.*?)^```",
    (ROOT / "docs/checkpoints.md").read_text(),
    re.M | re.S,
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working directory that holds the files which fragments name."""
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")
    (tmp_path / "my_run/config.json").write_text('{"width": 16, "classes": 10}')
    assert ADAPTER is not None
    (tmp_path / ADAPTER[1]).parent.mkdir()
    (tmp_path / ADAPTER[1]).write_text(ADAPTER[2])
    (tmp_path / "reference").symlink_to(ROOT / "suites" / "reference")
    return tmp_path


def _pipeline(place: Path) -> None:
    """A pipeline of the form that diffusers saves, of a network with few weights."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    net = UNet2DModel(
        sample_size=8, block_out_channels=(32, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    DDPMPipeline(net, DDPMScheduler()).save_pretrained(place)


def _runs(given: list[dict[str, Any]]) -> dict[str, Any]:
    """A suite of printed runs, over data of the first one's shape."""
    shape = find_card(given[0]["model"]).card.shape
    if given[0].get("weights") == "path/to/pipeline":
        shape = (3, 8, 8)
    if shape in (None, (1, 8, 8)):
        return SUITE | {"runs": given}
    np.savez("images.npz", images=np.zeros((20, *shape), np.uint8))
    data = {"dataset": {"name": "images", "path": "images.npz"}, "features": "pixels"}
    return SUITE | data | {"runs": given}


def _planned(given: dict[str, Any]) -> Plan:
    path = Path("printed.yaml")
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    source = read_yaml(path)
    return make_plan(validate(source, Suite), source)


def _taken_recipe(given: dict[str, Any]) -> Recipe:
    Path("recipe.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    return read_recipe(Path("recipe.yaml"))


def _fragment(given: dict[str, Any]) -> None:
    """A suite's keys inside a whole suite, a recipe's inside a whole recipe."""
    if set(given) <= set(Suite.model_fields):
        files = given.get("reference", {}).get("files")
        base = _runs(given["runs"]) if "runs" in given else SUITE
        assert _planned(base | ({"features": [*files]} if files else {}) | given).cells
    else:
        student = {"distance": "l2", "teacher": "edm/digits"} if "objective" in given else {}
        _taken_recipe(RECIPE | student | given)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 8
    assert len(INLINE) >= 3


def test_no_yaml_hides_in_another_block() -> None:
    for page in PAGES:
        plain = re.findall(r"^```\n(.*?)^```|((?:^    .*\n)+)", page.read_text(), re.M | re.S)
        for text in map("".join, plain):
            assert not re.match(r"\s*(suite|recipe|runs|dataset|model|- model): ", text), page
            assert not re.match(r"\s*runs:\n", text), page


@pytest.mark.parametrize("text", BLOCKS)
def test_a_printed_block_is_taken(text: str) -> None:
    given = yaml.safe_load(text)
    if "path/to/pipeline" in text:
        _pipeline(Path("path/to/pipeline"))
    file = re.match(r"# (models/(\w+)\.cards\.yaml)\n", text)
    if file is not None:
        Path(file[1]).write_text(text)
        for name in given:
            card = find_card(f"{file[2]}/{name}")
            assert open_card(card)[1] == card.weights_file
    elif isinstance(given, list):
        assert _planned(_runs(given)).cells
    elif "suite" in given:
        plan = _planned(given)
        assert plan.cells
        assert all(cell.pending is None for cell in plan.cells)
    elif "recipe" in given:
        _taken_recipe(given)
    elif given.get("apiVersion") == "ray.io/v1":
        words = shlex.split(given["spec"]["entrypoint"])
        assert words[0] == "cmbench"
        parse_command(words[1:])
    elif any("licence" in row for row in given.values() if isinstance(row, dict)):
        Path("assets.yaml").write_text(text)
        assert set(given) <= set(catalogue())
        assert all(isinstance(catalogue()[name], Asset) for name in given)
    else:
        _fragment(given)


@pytest.mark.parametrize("text", INLINE)
def test_a_key_that_is_told_in_a_sentence_is_taken(text: str) -> None:
    _fragment(yaml.safe_load(text))
