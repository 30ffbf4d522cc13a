"""What a training refuses: another architecture, truncated weights, divergence, another folder."""

import pytest
import torch
from safetensors.torch import save_file

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.denoise.model import load_weights
from cmbench.train.loop import DivergedError, train
from cmbench.train.recipe import Recipe, read_recipe

PLAIN = {
    "recipe": "edm/tiny", "dataset": "digits", "objective": "edm", "batch": 4, "images": 16,
    "model": {"name": "edm", "shape": (1, 8, 8),
              "network": {"name": "compact_unet", "channels": (16,), "embedding": 16}},
}  # fmt: skip


def run(folder, **changes):
    recipe = Recipe.model_validate(PLAIN | changes)
    images = create("dataset", "digits").open()
    return train(recipe, dataset_images=images, folder=folder, device=torch.device("cpu"))


def test_weights_of_another_architecture_are_refused(tmp_path):
    done = run(tmp_path / "a")
    wider = {"name": "compact_unet", "channels": (24,), "embedding": 16}
    other = create("model", {**PLAIN["model"], "network": wider}).build()
    with pytest.raises(UserError, match="another architecture: .* tensors differ"):
        load_weights(other, done.weights)
    done.weights.write_bytes(done.weights.read_bytes()[:500])
    with pytest.raises(UserError, match="truncated"):
        load_weights(other, done.weights)
    save_file({"x": torch.zeros(1)}, done.weights)
    with pytest.raises(UserError, match="another architecture"):
        load_weights(other, done.weights)


def test_divergence_stops_and_names_the_step(tmp_path):
    with pytest.raises(DivergedError, match=r"diverged at step \d+.*(?s:.*)fix: lower"):
        run(tmp_path, objective={"name": "edm", "p_mean": 200.0})


def test_a_folder_of_another_training_is_refused(tmp_path):
    run(tmp_path, save_every_images=8)
    with pytest.raises(UserError, match="another training"):
        run(tmp_path, save_every_images=8, seed=1)


def test_a_student_without_its_teacher_is_refused(tmp_path):
    with pytest.raises(UserError, match="teacher"):
        run(tmp_path, objective={"name": "ct", "init": "teacher"}, distance="l2",
            model={**PLAIN["model"], "name": "consistency"})  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "objective: edm",
            "objective: {name: edm, p_men: 1}",
            r"r\.yaml:4: .*did you mean 'p_mean'",
        ),
        ("objective: edm", "objective: cd", r"r\.yaml:4: .*needs a distance"),
        ("images: 16", "imagse: 16", r"r\.yaml:5: unknown key|r\.yaml:5: imagse: unknown key"),
        ("images: 16", "images: -3", r"r\.yaml:5: images: .*greater than"),
    ],
)
def test_recipe_mistakes_have_their_place(tmp_path, old, new, message):
    text = ("recipe: edm/x\nmodel: {name: edm, shape: [1, 8, 8], network: {name: compact_unet}}\n"
            "dataset: digits\nobjective: edm\nimages: 16\n")  # fmt: skip
    path = tmp_path / "r.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_recipe(path)
