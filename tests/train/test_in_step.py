"""Students trained in step get the weights that they get alone, and one fault harms no other."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmbench.core.errors import Interrupted, UserError
from cmbench.core.loader import create
from cmbench.train.loop import DivergedError, Student, TrainState, train, train_in_step
from cmbench.train.objectives.cd import _Distillation
from cmbench.train.recipe import Recipe, require_alike

NETWORK = {"name": "compact_unet", "channels": (16,), "dropout": 0.1, "embedding": 16}
BASE = Recipe(
    recipe="consistency/l2",
    model={"name": "consistency", "shape": (1, 8, 8), "network": NETWORK},
    dataset="digits",
    objective={"name": "cd", "points": 6},
    distance="l2",
    teacher="edm/digits",
    batch=8,
    images=48,
    flip=True,
)
RECIPES = [
    BASE,
    BASE.with_overrides({"recipe": "consistency/l1", "distance": "l1", "optimiser.lr": 1e-3}),
    BASE.with_overrides({"recipe": "consistency/mu", "objective.mu": 0.9, "images": 64}),
]


@pytest.fixture
def teacher() -> torch.nn.Module:
    torch.manual_seed(3)
    model = create("model", {"name": "edm", "shape": (1, 8, 8), "network": NETWORK})
    made = model.build().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


def _given(teacher: torch.nn.Module) -> dict:
    images = create("dataset", "digits").open()
    return {"dataset_images": images, "teacher": teacher, "device": torch.device("cpu")}


def _together(folder: Path, given: dict, recipes: list[Recipe], progress=None) -> None:
    students = [Student(r, folder / Path(r.recipe).name) for r in recipes]
    train_in_step(students, progress=progress, **given)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def _same(a: Path, b: Path) -> bool:
    one, other = _weights(a), _weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_weights_are_those_of_the_trainings_alone_for_fewer_passes(tmp_path, teacher, monkeypatch):
    given, calls = _given(teacher), []
    solve = _Distillation.solve
    monkeypatch.setattr(_Distillation, "solve", lambda *a: calls.append(1) or solve(*a))
    for recipe in RECIPES:
        train(recipe, folder=tmp_path / "alone" / Path(recipe.recipe).name, **given)
    assert len(calls) == 6 + 6 + 8
    calls.clear()
    _together(tmp_path / "together", given, RECIPES)
    assert len(calls) == 8
    for name in ("l2", "l1", "mu"):
        assert _same(tmp_path / "alone" / name, tmp_path / "together" / name)
    assert not _same(tmp_path / "together" / "l1", tmp_path / "together" / "l2")


def test_an_interrupt_and_one_who_is_ahead_change_nothing(tmp_path, teacher):
    given = _given(teacher)
    _together(tmp_path / "straight", given, RECIPES)

    def stop(state: TrainState) -> None:
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        train(RECIPES[0], folder=tmp_path / "cut" / "l2", progress=stop, **given)
    with pytest.raises(Interrupted):
        _together(tmp_path / "cut", given, RECIPES[:2], stop)
    _together(tmp_path / "cut", given, RECIPES)
    for name in ("l2", "l1", "mu"):
        assert _same(tmp_path / "straight" / name, tmp_path / "cut" / name)


def test_one_that_diverges_leaves_the_others_to_finish(tmp_path, teacher):
    given = _given(teacher)
    steep = BASE.optimiser.model_copy(update={"lr": 1e30})  # no recipe may ask for it
    sick = BASE.with_overrides({"recipe": "consistency/sick", "clip": None})
    sick = sick.model_copy(update={"optimiser": steep})
    with pytest.raises(DivergedError, match="consistency/sick"):
        _together(tmp_path, given, [RECIPES[0], sick, RECIPES[1]])
    assert not (tmp_path / "sick" / "weights.safetensors").exists()
    train(RECIPES[1], folder=tmp_path / "alone", **given)
    assert _same(tmp_path / "alone", tmp_path / "l1")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"objective.points": 9}, "objective.points is 6 in one and 9"),
        ({"batch": 4}, "batch is 8 in one and 4"),
        ({"seed": 1}, "seed is 0 in one and 1"),
        ({"objective": "ct"}, "objective 'ct' share nothing"),
        ({"recipe": "consistency/l2"}, "given twice"),
    ],
)
def test_recipes_that_share_nothing_are_refused(change, named):
    other = BASE.with_overrides({"recipe": "consistency/other"} | change)
    with pytest.raises(UserError, match=named):
        require_alike([BASE, other])
