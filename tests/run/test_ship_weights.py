"""A training shipped with its card."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
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


def _usable() -> bytes:
    """The bytes of the weights that the card gives; refused if they are not what it states."""
    placed = find_card("small_edm/digits")
    model, file = open_card(placed)
    assert file is not None
    model.load(model.build(), file)
    return file.read_bytes()


def test_killed_at_any_write_the_card_gives_weights_old_or_new(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship_weights("small_edm/digits", Path("out"))
    old = _usable()
    state = load_file("out/weights.safetensors")
    save_file({k: v * 1.5 for k, v in state.items()}, "out/weights.safetensors")
    names = ("write_bytes", "write_json", "write_text")
    for last in range(len(names)):
        with monkeypatch.context() as patch:
            patch.setattr(f"cmbench.cards.ship.{names[last]}", _killed)
            with pytest.raises(KeyboardInterrupt):
                ship_weights("small_edm/digits", Path("out"))
        assert _usable() == old
    weights, log, _ = ship_weights("small_edm/digits", Path("out"))
    assert _usable() == weights.read_bytes() != old
    assert log.is_file()
    # Of the old weights nothing is left, and shipping the same again changes nothing.
    assert sorted(f.name for f in weights.parent.iterdir()) == sorted([weights.name, log.name])
    assert ship_weights("small_edm/digits", Path("out"))[0].read_bytes() == weights.read_bytes()
    assert _usable() == weights.read_bytes()


def _killed(*arguments: object) -> None:
    raise KeyboardInterrupt
