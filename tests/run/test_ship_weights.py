"""A training shipped with its card."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from cmbench.cards.cards import find_card
from cmbench.cards.open import open_card
from cmbench.cards.ship import ship_weights
from cmbench.cli.main import app
from cmbench.core.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family of one's own whose recipe has run for two steps; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMBENCH_CACHE", str(tmp_path / "cache"))
    family = tmp_path / "models" / "small_edm"
    shutil.copytree(ROOT / "models" / "edm", family, ignore=shutil.ignore_patterns("weights"))
    recipe = yaml.safe_load((family / "recipes/digits.yaml").read_text())
    recipe |= {"recipe": "small_edm/digits", "images": 2 * recipe["batch"]}
    recipe["model"]["name"] = "small_edm"
    (family / "recipes/digits.yaml").write_text(yaml.safe_dump(recipe))
    (family / "cards.yaml").write_text(
        "# A comment that stays.\n"
        "first: {recipe: recipes/digits.yaml}\n"
        "digits:\n  recipe: recipes/digits.yaml\n  summary: 'mine: by me'\n"
        "# Another.\nlast: {recipe: recipes/digits.yaml}\n"
    )
    done = CliRunner().invoke(
        app, ["train", str(family / "recipes/digits.yaml"), "--out", "out", "-q"]
    )
    assert done.exit_code == 0, done.output
    return tmp_path


def test_the_card_gives_the_trained_weights(trained: Path) -> None:
    weights, log, cards = ship_weights("small_edm/digits", Path("out"))
    told, shipped = load_file("out/weights.safetensors"), load_file(weights)
    assert {k: v.half() for k, v in told.items()}.keys() == shipped.keys()
    assert all(torch.equal(told[k].half(), shipped[k]) for k in told)
    placed = find_card("small_edm/digits")
    assert placed.card.summary == "mine: by me"
    assert placed.recipe_file is not None
    recipe = yaml.safe_load(placed.recipe_file.read_text())
    assert placed.card.training["images"] == recipe["images"]
    model, file = open_card(placed)  # refused if the digest were not the file's
    module = model.build()
    assert file is not None
    model.load(module, file)
    assert log.is_file()
    text = cards.read_text()
    assert "# A comment that stays.\nfirst: {recipe: recipes/digits.yaml}\n" in text
    assert "# Another.\nlast: {recipe: recipes/digits.yaml}\n" in text


def test_a_training_by_another_recipe_is_refused(trained: Path) -> None:
    recipe = trained / "models/small_edm/recipes/digits.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 1"))
    with pytest.raises(UserError, match="another recipe"):
        ship_weights("small_edm/digits", Path("out"))


def test_an_unfinished_training_is_refused(trained: Path) -> None:
    with pytest.raises(UserError, match="no finished training"):
        ship_weights("small_edm/digits", Path("elsewhere"))
