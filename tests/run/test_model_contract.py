"""The contract's checks are graded: honest plugins pass, each sabotaged one is caught and told."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cmbench.core.errors import UserError
from cmbench.testing.model_contract import check_model

HONEST = '''\
"""A small honest denoiser."""
import random
import numpy as np
import torch
from cmbench.api import ConsistencyFunction, Denoiser, EDMDenoiser, Model, load_weights, read_torch

__all__ = ["Plugin"]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.calls = 0

    def forward(self, x, c_noise, labels=None):
        return self.conv(x) * (1 + 0.1 * c_noise[:, None, None, None])


class D(EDMDenoiser):
    def __init__(self):
        super().__init__(Net(), (1, 8, 8))


class Plugin(Model):
    sampler = {"name": "euler"}

    def build(self):
        return D()
'''

FORWARD = "\n    def forward(self, x, sigma, labels=None):\n"
BODY = "        super().__init__(Net(), (1, 8, 8))\n"

SABOTAGE = {
    # name: (text replaced, by what, the rule that must break, what the fix must say)
    "counts_less": (
        BODY,
        BODY + FORWARD + "        super().forward(x, sigma)\n        return super().forward(x, sigma)\n",
        "every evaluation is counted",
        "call the network once",
    ),
    "hides_network": (
        BODY,
        BODY + "        self.other = torch.nn.Conv2d(1, 1, 1)\n" + FORWARD
        + "        return super().forward(x + 0.01 * self.other(x.float()).to(x.dtype), sigma)\n",
        "every evaluation is counted",
        "every module that computes",
    ),
    "counts_none": (
        BODY,
        BODY + "    def networks(self):\n        return []\n",
        "every evaluation is counted",
        "networks()",
    ),
    "counts_a_loop_as_one": (
        "    def forward(self, x, c_noise, labels=None):\n        return self.conv(x)",
        "    def forward(self, x, c_noise, labels=None):\n        for _ in range(3):\n"
        "            x = self.conv(x)\n        return x",
        "every evaluation is counted",
        "inner network",
    ),
    "calls_forward_directly": (
        BODY,
        BODY + FORWARD + "        return self.net.forward(x.float(), sigma.float()).to(x.dtype)\n",
        "every evaluation is counted",
        "net.forward",
    ),
    "batch_mean": (
        "return self.conv(x)",
        "return self.conv(x - x.mean(0, keepdim=True))",
        "an image does not depend on its batch",
        "statistic over the batch",
    ),
    "one_sigma_for_all": (
        BODY,
        BODY + FORWARD + "        return super().forward(x, sigma[:1].expand(len(x)))\n",
        "an image does not depend on its batch",
        "sigma is a vector",
    ),
    "global_torch": (
        "return self.conv(x)",
        "return torch.randn_like(x) * 0.1 + self.conv(x)",
        "no global random generator is changed",
        "Noise",
    ),
    "global_numpy": (
        "return self.conv(x)",
        "return float(np.random.rand()) * 0 + self.conv(x)",
        "no global random generator is changed",
        "Noise",
    ),
    "global_random": (
        "return self.conv(x)",
        "return random.random() * 0 + self.conv(x)",
        "no global random generator is changed",
        "Noise",
    ),
    "reseeds": (
        "return self.conv(x)",
        "torch.manual_seed(0)\n        return self.conv(x)",
        "no global random generator is changed",
        "Noise",
    ),
    "keeps_state": (
        "return self.conv(x)",
        "self.calls += 1\n        return 0.1 * self.calls + self.conv(x)",
        "it keeps no state between calls",
        "state between calls",
    ),
    "dropout_on": (
        "return self.conv(x)",
        "return torch.nn.functional.dropout(x, 0.5) + self.conv(x)",
        "the same noise gives the same images",
        "dropout",
    ),
    "unit_range": (
        BODY,
        BODY + FORWARD + "        return super().forward(x, sigma).sigmoid()\n",
        "sampled images lie in [-1, 1]",
        "[-1, 1]",
    ),
    "bytes": (
        BODY,
        BODY + FORWARD + "        return super().forward(x, sigma).sigmoid() * 255\n",
        "sampled images lie in [-1, 1]",
        "bytes",
    ),
    "nan": (
        "return self.conv(x)",
        "return torch.log(x - 100) + self.conv(x)",
        "D(x, sigma) has the shape and type of x",
        "preconditioning",
    ),
    "wrong_shape": (
        "super().__init__(Net(), (1, 8, 8))",
        "super().__init__(Net(), (1, 8, 8))" + FORWARD
        + "        return super().forward(x, sigma)[:, :, :4]",
        "D(x, sigma) has the shape and type of x",
        "shape and type",
    ),
    "narrow_type": (
        BODY,
        BODY + FORWARD + "        return super().forward(x, sigma).half()\n",
        "D(x, sigma) has the shape and type of x",
        "shape and type",
    ),
    "in_place": (
        BODY,
        BODY + FORWARD + "        made = super().forward(x, sigma)\n        x.mul_(0.5)\n"
        "        return made\n",
        "forward leaves its arguments unchanged",
        "in-place",
    ),
    "gives_noise": (
        BODY,
        BODY + FORWARD + "        made = super().forward(x, sigma)\n"
        "        return (x - made) / sigma[:, None, None, None] + 1\n",
        "at sigma_min it returns its input",
        "not the noise",
    ),
    "broken_boundary": (
        "class D(EDMDenoiser):",
        "class D(ConsistencyFunction):\n    def scalings(self, sigma):\n"
        "        return EDMDenoiser.scalings(self, sigma * 10)\n",
        "a consistency function keeps its boundary condition",
        "c_skip(sigma_min) = 1",
    ),
    "levels_reversed": (
        "super().__init__(Net(), (1, 8, 8))",
        "super().__init__(Net(), (1, 8, 8), sigma_min=80.0, sigma_max=0.002)",
        "its range of noise levels is valid",
        "sigma_min < sigma_max",
    ),
    "no_denoiser": (
        "        return D()",
        "        return Net()",
        "build returns the module it states",
        "Denoiser",
    ),
    "no_module": (
        "        return D()",
        "        return 3",
        "build returns the module it states",
        "torch.nn.Module",
    ),
    "unseeded_build": (
        "        return D()",
        "        made = D()\n        torch.nn.init.constant_(made.net.conv.bias, "
        "int.from_bytes(__import__('os').urandom(2), 'big'))\n        return made",
        "the same seed builds the same weights",
        "global generator",
    ),
    "no_sampler": (
        '    sampler = {"name": "euler"}\n',
        "",
        "it has a sampler",
        "sampler =",
    ),
    "loads_anything": (
        "        return D()",
        "        return D()\n\n    def load(self, module, weights):\n"
        "        from safetensors.torch import load_file\n"
        "        module.load_state_dict(load_file(weights), strict=False)",
        "weights of another network are refused",
        "load_weights",
    ),
    "unpickles": (
        "        return D()",
        "        return D()\n\n    def load(self, module, weights):\n"
        "        module.load_state_dict(torch.load(weights, weights_only=False))",
        "its file runs no code from a weights file",
        "read_torch",
    ),
    "raises": (
        "return self.conv(x)",
        "raise KeyError('lost')\n        return self.conv(x)",
        "D(x, sigma) has the shape and type of x",
        "adapter's code",
    ),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    return tmp_path


def _write(folder: Path, name: str, text: str) -> None:
    (folder / "models" / f"{name}.py").write_text(text)


def test_an_honest_plugin_passes(folder: Path) -> None:
    _write(folder, "honest", HONEST)
    verdict = check_model("honest")
    assert verdict.holds, [f for f in verdict.findings if not f.holds]
    assert len(verdict.findings) >= 15


@pytest.mark.parametrize("name", SABOTAGE)
def test_each_sabotage_is_caught_and_its_fix_named(folder: Path, name: str) -> None:
    old, new, rule, fix = SABOTAGE[name]
    assert HONEST.count(old) == 1
    _write(folder, name, HONEST.replace(old, new))
    broken = {f.rule: f for f in check_model(name).findings if not f.holds}
    assert rule in broken, broken
    assert fix in broken[rule].fix + broken[rule].seen


AVERAGED = HONEST.replace(
    "        return D()",
    "        return D()\n\n    def load(self, module, weights):\n"
    "        module.load_state_dict(read_torch(weights)['TAKEN'])",
)


@pytest.mark.parametrize(("taken", "holds"), [("ema", True), ("model", False)])
def test_raw_weights_beside_averaged_ones_are_caught(
    folder: Path, taken: str, holds: bool
) -> None:
    _write(folder, "averaged", AVERAGED.replace("TAKEN", taken))
    state = {"net.conv.weight": torch.full((1, 1, 3, 3), 0.1), "net.conv.bias": torch.ones(1)}
    other = {k: v + 1 for k, v in state.items()}
    torch.save({"model": other, "ema": state}, folder / "w.pt")
    verdict = check_model("averaged", weights=folder / "w.pt")
    broken = [f.rule for f in verdict.findings if not f.holds]
    assert broken == ([] if holds else ["the averaged weights are loaded"])


def test_weights_that_are_not_loaded_are_caught(folder: Path) -> None:
    text = HONEST.replace(
        "        return D()",
        "        return D()\n\n    def load(self, module, weights):\n        pass",
    )
    _write(folder, "idle", text)
    save_file({"net.conv.bias": torch.ones(1)}, folder / "w.safetensors")
    findings = check_model("idle", weights=folder / "w.safetensors").findings
    assert "loading changes the weights" in [f.rule for f in findings if not f.holds]


def test_weights_are_found_as_the_family_opens_them(folder: Path) -> None:
    opens = (
        "        return D()\n\n    @classmethod\n    def opened(cls, given):\n"
        "        return given / 'w.safetensors', {}"
    )
    _write(folder, "opening", HONEST.replace("        return D()", opens))
    state = {"net.conv.weight": torch.full((1, 1, 3, 3), 0.1), "net.conv.bias": torch.ones(1)}
    (folder / "run").mkdir()
    save_file(state, folder / "run" / "w.safetensors")
    verdict = check_model("opening", weights=folder / "run")
    assert verdict.holds, [f for f in verdict.findings if not f.holds]
    with pytest.raises(UserError, match="does not exist"):
        check_model("opening", weights=folder / "nowhere")


@pytest.mark.parametrize(
    "card",
    ["edm/digits", "consistency/digits", "oracle/gaussian", "oracle/digits", "gan/digits",
     "cold/digits", "sohl_dickstein/digits", "edm/cifar10_small"],
)  # fmt: skip
def test_what_cmbench_ships_holds(card: str) -> None:
    verdict = check_model(card)
    assert verdict.holds, [f for f in verdict.findings if not f.holds]
