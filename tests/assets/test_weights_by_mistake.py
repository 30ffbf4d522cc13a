"""Files given for weights by mistake: each is named for what it is, and what to give instead."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cmbench.core.errors import Pending, UserError
from cmbench.released.diffusers_folder import find_diffusers
from cmbench.released.torch_state import read_state_dict

STATE = {"a.weight": torch.zeros(2, 2), "a.bias": torch.ones(2)}


def saved(folder, value):
    torch.save(value, folder / "file.pt")
    return folder / "file.pt"


def test_a_state_dict_is_read_with_or_without_data_parallel_s_prefix(tmp_path):
    for given in (STATE, {f"module.{name}": value for name, value in STATE.items()}):
        found = read_state_dict(saved(tmp_path, given))
        assert list(found) == list(STATE)
        assert torch.equal(found["a.bias"], torch.ones(2))


def test_a_name_that_only_some_share_is_no_prefix(tmp_path):
    mixed = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert list(read_state_dict(saved(tmp_path, mixed))) == list(mixed)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.optim.Adam([torch.zeros(2, requires_grad=True)]).state_dict(), "optimiser's state"),
        ({"model": STATE, "ema": STATE, "step": 3}, r"(?s)holds model, ema, step.*\['model'\]"),
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, value, said):
    with pytest.raises(UserError, match=said) as caught:
        read_state_dict(saved(tmp_path, value))
    assert "file.pt" in str(caught.value)


def pipeline(folder: Path, *weights: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "scheduler_config.json"):
        (folder / name).write_text(json.dumps({"a": 1}))
    for name in weights:
        save_file({"a": torch.zeros(1)}, folder / name)
    return folder


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([], "holds no weights"),
        (["diffusion_pytorch_model.fp16.safetensors"], r"(?s)only diffusion_pytorch_model\.fp16.*give that file itself"),
        ([f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)], r"(?s)in 2 shards.*save_pretrained"),
    ],
)  # fmt: skip
def test_a_pipeline_without_its_weights_says_what_it_has(tmp_path, weights, said):
    folder = pipeline(tmp_path / "p", *weights)
    with pytest.raises(UserError, match=said):
        find_diffusers(folder)
    if len(weights) == 1:
        assert find_diffusers(folder / weights[0]).weights == folder / weights[0]


def test_a_hub_name_is_not_cut_at_a_dot(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Pending) as caught:
        find_diffusers("owner/model-v1.5")
    assert caught.value.command == "hf download owner/model-v1.5"
    here = tmp_path / "models--owner--model-v1.5" / "snapshots" / "abc"
    pipeline(here, "diffusion_pytorch_model.safetensors")
    assert find_diffusers("owner/model-v1.5").weights.parent == here


@pytest.mark.parametrize("name", ["owner/model.safetensors", "x" * 300, "a/b/c", "a\0b", ""])
def test_names_that_are_none_are_user_errors(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        find_diffusers(name)
