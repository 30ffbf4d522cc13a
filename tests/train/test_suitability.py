"""Images, labels and teacher are held against the model before a training begins."""

import numpy as np
import pytest
import torch

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.datasets._arrays import ArrayImages
from cmbench.suite.planner import make_plan
from cmbench.suite.spec import read_suite
from cmbench.train.loop import train
from cmbench.train.recipe import Recipe

NETWORK = {"name": "compact_unet", "channels": (16,), "embedding": 16}
CPU = torch.device("cpu")


def recipe_of(classes=0, shape=(1, 8, 8), **changes):
    model = {"name": "edm", "shape": shape, "classes": classes, "network": NETWORK}
    plain = {"recipe": "edm/tiny", "dataset": "digits", "objective": "edm", "batch": 4}
    return Recipe.model_validate(plain | {"images": 16, "model": model} | changes)


def images_of(shape=(1, 8, 8), labels=None, count=10):
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    known = None if labels is None else np.asarray(labels, np.int64)
    return ArrayImages(pixels, known, classes=0 if known is None else int(known.max()) + 1)


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        ({}, {"shape": (1, 28, 28)}, r"shape \[1, 8, 8\], the dataset's \[1, 28, 28\]"),
        ({}, {"shape": (3, 8, 8)}, r"shape \[1, 8, 8\], the dataset's \[3, 8, 8\]"),
        ({"classes": 10}, {}, "has 10 classes, but the dataset has no labels"),
        (
            {"classes": 10},
            {"labels": range(1, 11)},
            r"image 9 has label 10, .* \(1 of 10 labels are out of range\)",
        ),
        (
            {"classes": 10},
            {"labels": [0, 1, -1, -1, *[2] * 6]},
            r"labels run from -1 to 2",
        ),
    ],
)
def test_images_that_do_not_suit_the_model_are_refused(tmp_path, model, images, message):
    with pytest.raises(UserError, match=message):
        train(recipe_of(**model), dataset_images=images_of(**images), folder=tmp_path, device=CPU)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("model", "images"),
    [
        ({}, {"labels": range(10)}),
        ({"classes": 10}, {"labels": range(10)}),
        ({"classes": 12}, {"labels": range(10)}),
        ({}, {"count": 2}),
    ],
)
def test_images_that_suit_it_are_trained_on(tmp_path, model, images):
    train(recipe_of(**model), dataset_images=images_of(**images), folder=tmp_path, device=CPU)
    assert (tmp_path / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"shape": (1, 16, 16)}, r"teacher edm/digits has shape \[1, 16, 16\], the student"),
        ({"classes": 10}, "teacher edm/digits has classes 10, the student 0"),
    ],
)
def test_a_teacher_of_another_shape_or_number_of_classes_is_refused(tmp_path, teacher, message):
    model = recipe_of().model | {"name": "consistency"}
    recipe = recipe_of(objective="cd", distance="l2", teacher="edm/digits", model=model)
    taught = create("model", recipe_of(**teacher).model).build()
    given = {"teacher": taught, "dataset_images": images_of(), "folder": tmp_path, "device": CPU}
    with pytest.raises(UserError, match=message):
        train(recipe, **given)


def test_a_suite_that_trains_on_images_of_another_shape_is_refused_by_its_line(tmp_path):
    suite = tmp_path / "wrong.yaml"
    suite.write_text(
        "suite: wrong\ndataset: digits\nimages: {count: 8}\nfeatures: pixels\n"
        "metrics: [frechet_distance]\nruns:\n  - model: edm/digits\n"
        "    train: {model.shape: [[1, 16, 16]]}\n    nfe: [1]\n"
    )
    read, source = read_suite(suite)
    with pytest.raises(
        UserError, match=r"wrong\.yaml:8: .*\[1, 16, 16\], the dataset's \[1, 8, 8\]"
    ):
        make_plan(read, source)
