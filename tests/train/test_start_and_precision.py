"""Going on from given weights, and the narrow and compiled forms of one training."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cmbench.core.errors import UserError
from cmbench.core.loader import create
from cmbench.train.loop import TrainResult, train
from cmbench.train.recipe import Recipe

RECIPE = Recipe(
    recipe="edm/tiny",
    model={
        "name": "edm",
        "shape": (1, 8, 8),
        "network": {"name": "compact_unet", "channels": (16,), "embedding": 16},
    },
    dataset="digits",
    objective="edm",
    batch=16,
    images=160,
    log_every=1,
)


def _run(folder: Path, start_module: nn.Module | None = None, **changes: object) -> TrainResult:
    recipe = RECIPE.with_overrides(changes)
    images = create("dataset", "digits").open()
    return train(
        recipe,
        dataset_images=images,
        start=start_module,
        folder=folder,
        device=torch.device("cpu"),
    )


def _losses(result: TrainResult) -> torch.Tensor:
    from cmbench.record.schema import TrainingLog

    log = TrainingLog.model_validate_json(result.log.read_text())
    return torch.tensor([point.loss for point in log.points])


def test_a_training_starts_from_the_weights_it_names(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = create("model", RECIPE.model).build()
    still = {"start": "edm/digits", "optimiser.lr": 1e-30, "ema.half_life_images": 0.0}
    kept = load_file(_run(tmp_path / "a", start_module=first, **still).weights)
    for name, expected in first.state_dict().items():
        torch.testing.assert_close(kept[name], expected, rtol=0, atol=1e-12)


def test_start_is_part_of_the_identity_only_where_it_is_given() -> None:
    assert "start" not in RECIPE.identity()
    assert RECIPE.with_overrides({"start": "edm/digits"}).identity()["start"] == "edm/digits"


def test_a_start_of_another_network_is_refused(tmp_path: Path) -> None:
    other = create("model", {**RECIPE.model, "network": {"name": "digits_cnn"}}).build()
    with pytest.raises(UserError, match="can't start from the weights of edm/digits"):
        _run(tmp_path, start_module=other, start="edm/digits")


def test_a_start_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="continues edm/digits"):
        _run(tmp_path, start="edm/digits")


def test_bf16_trains_to_nearly_the_same_losses_with_float32_weights(tmp_path: Path) -> None:
    full, narrow = _run(tmp_path / "a"), _run(tmp_path / "b", precision="bf16")
    wide, thin = _losses(full), _losses(narrow)
    assert not torch.equal(wide, thin)
    torch.testing.assert_close(thin, wide, rtol=0.05, atol=0)
    assert all(v.dtype == torch.float32 for v in load_file(narrow.weights).values())


@pytest.mark.slow
def test_a_compiled_training_gives_the_same_losses(tmp_path: Path) -> None:
    plain, compiled = _run(tmp_path / "a"), _run(tmp_path / "b", compile=True)
    torch.testing.assert_close(_losses(compiled), _losses(plain), rtol=1e-4, atol=0)


def test_a_bare_name_keeps_the_parameters_that_the_recipe_gives_to_it() -> None:
    recipe = RECIPE.with_overrides(
        {"objective": {"name": "cd", "points": 12}, "distance": "l2", "teacher": "edm/digits"}
    )
    kept = recipe.with_overrides({"objective": "cd"}).objective
    changed = recipe.with_overrides({"objective": "ct"}).objective
    assert kept == {"name": "cd", "points": 12}
    assert changed == "ct"
