"""What a recipe refuses, before anything is trained: each fault with file, line and key."""

import pytest

from cmbench.core.errors import UserError
from cmbench.train.recipe import Recipe, read_recipe

TEXT = """\
recipe: edm/x
model:
  name: edm
  shape: [1, 8, 8]
  network:
    name: compact_unet
    channels: [16, 16]
dataset: digits
objective: edm
optimiser:
  lr: 1.0e-3
images: 16
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels: [16, 16]", "channels: [16, 0]", r"r\.yaml:7: model\.network\.channels\[1\]: "),
        ("channels: [16, 16]", "channels: [16, 10]", r"r\.yaml:5: .*multiples of 8"),
        ("channels: [16, 16]", "chanels: [16]", r"r\.yaml:7: .*did you mean 'channels'"),
        ("channels: [16, 16]", "blocks: 1000000000", r"r\.yaml:7: .*less than or equal to 256"),
        ("channels: [16, 16]", "channels: [8, 8, 8, 8, 8]", r"r\.yaml:5: .*8 is not divisible"),
        ("name: compact_unet", "name: compact_unnet", r"r\.yaml:5: .*'compact_unet'"),
        ("[1, 8, 8]", "[0, 8, 8]", r"r\.yaml:4: .*greater than or equal to 1"),
        ("[1, 8, 8]", "[1, 8, 9]", r"r\.yaml:5: .*not divisible"),
        ("[1, 8, 8]", "[1, -8, 8]", r"r\.yaml:4: "),
        ("lr: 1.0e-3", "lr: 1.0e+30", r"r\.yaml:11: .*less than or equal to 10"),
        ("lr: 1.0e-3", "lr: .inf", r"r\.yaml:11: .*finite|r\.yaml:11: .*less than"),
        ("lr: 1.0e-3", "betas: [0.9, 1.0]", r"r\.yaml:11: .*less than 1"),
        ("images: 16", "images: 1000000000000000000000000", r"r\.yaml:12: .*beyond 64 bits"),
        ("objective: edm", "objective: {name: edm, p_std: -1}", r"r\.yaml:9: .*greater than 0"),
        ("recipe: edm/x", "recipe: ../../x", r"r\.yaml:1: .*not a path"),
    ],
)
def test_a_fault_of_a_recipe_is_reported_at_its_line(tmp_path, old, new, message):
    path = tmp_path / "r.yaml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_recipe(path)


def recipe(tmp_path) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(TEXT)
    return read_recipe(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"images.x": 1}, "images is 16, which holds no key 'x'"),
        ({"recipe.x": 1}, "recipe: Input should be a valid string"),
        ({"distance.x": 1}, "no key 'x'"),
        ({"model.shape.0": 1}, "which holds no key '0'"),
        ({"no.such.key": 1}, "no key 'no'"),
        ({"imagse": 1}, "did you mean 'images'"),
        ({"optimiser.lr.x": 1}, "lr is 0.001, which holds no key 'x'"),
        ({"model.network.chanels": [8]}, "did you mean 'channels'"),
        ({"model.network.channels": [8] * 9}, "not divisible"),
        ({"objective": "cd"}, "needs a distance"),
        ({"objective": "cd", "distance": "l2"}, "needs a teacher"),
        ({"": 1}, "no key ''"),
    ],
)
def test_an_override_that_makes_no_sense_is_refused(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        recipe(tmp_path).with_overrides(overrides)


def test_overrides_reach_inside_components(tmp_path):
    changed = recipe(tmp_path).with_overrides(
        {"objective.p_std": 1.0, "model.network.channels": [8], "optimiser.lr": 0.1}
    )
    assert changed.objective == {"name": "edm", "p_std": 1.0}
    assert changed.model["network"] == {"name": "compact_unet", "channels": [8]}
    assert changed.optimiser.lr == 0.1
