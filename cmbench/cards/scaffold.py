"""Writes a working model family to start from: adapter, card, recipe, test and suite."""

import keyword
import os
import re
from pathlib import Path
from typing import Literal

from cmbench.core.errors import UserError
from cmbench.core.files import refuse_unwritable, write_text

__all__ = ["Kind", "new_model"]

Kind = Literal["denoiser", "restorer", "oneshot"]

_DENOISER = '''\
"""{title}: say in a line what it is, and where it is from."""

from typing import Any, ClassVar

from torch import Tensor, nn

from cmbench.api import EDMDenoiser, Model

__all__ = ["{cls}"]


class {cls}(Model):
    """The fields are the configuration; recipes and cards give their values."""

    sampler: ClassVar[dict[str, Any] | None] = {{"name": "heun"}}

    shape: tuple[int, int, int]
    width: int = 32

    def build(self) -> nn.Module:
        """A denoiser D(x, sigma): here a raw network under EDM's preconditioning.

        A network of another parameterisation derives from cmbench.api.Denoiser and gives the
        estimate of the clean image for x = x0 + sigma * noise, images in [-1, 1].
        """
        return EDMDenoiser(_Network(self.shape[0], self.width), self.shape)


class _Network(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.noise = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(x) + self.noise(c_noise[:, None])[:, :, None, None]
        return self.last(self.act(h + self.middle(self.act(h))))
'''

_RESTORER = '''\
"""{title}: say in a line what it is, and where it is from."""

from typing import Any, ClassVar

from torch import nn

from cmbench.api import Model, NetworkRestorer, create

__all__ = ["{cls}"]


class {cls}(Model):
    """A network that undoes a degradation; no noise is needed."""

    makes: ClassVar[frozenset[str]] = frozenset({{"restorer"}})
    sampler: ClassVar[dict[str, Any] | None] = {{"name": "cold_algorithm2"}}

    shape: tuple[int, int, int]
    network: dict[str, Any]
    degradation: dict[str, Any]

    def build(self) -> nn.Module:
        """The network, its degradation, and what sampling starts from."""
        network = create("network", self.network).build(self.shape, 0)
        degradation = create("degradation", self.degradation)
        return NetworkRestorer(network, self.shape, degradation, time="unit", residual=True)
'''

_ONESHOT = '''\
"""{title}: say in a line what it is, and where it is from."""

from typing import Any, ClassVar

from torch import Tensor, nn

from cmbench.api import Model, OneShot

__all__ = ["{cls}"]


class {cls}(Model):
    """One call from a latent to an image."""

    makes: ClassVar[frozenset[str]] = frozenset({{"oneshot"}})
    sampler: ClassVar[dict[str, Any] | None] = {{"name": "oneshot"}}

    shape: tuple[int, int, int]
    latent: int = 16
    width: int = 128

    def build(self) -> nn.Module:
        """The generator."""
        return _Generator(self.shape, self.latent, self.width)


class _Generator(OneShot):
    def __init__(self, shape: tuple[int, int, int], latent: int, width: int) -> None:
        super().__init__(shape, latent)
        size = shape[0] * shape[1] * shape[2]
        self.layers = nn.Sequential(
            nn.Linear(latent, width), nn.SiLU(), nn.Linear(width, size), nn.Tanh()
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.layers(z).reshape(len(z), *self.shape)
'''

_ADAPTERS = {"denoiser": _DENOISER, "restorer": _RESTORER, "oneshot": _ONESHOT}

_RECIPES = {
    "denoiser": "objective: edm",
    "restorer": "objective: cold",
    "oneshot": "objective: {name: gan, channels: [32, 64]}\nclip: null",
}

_MODELS = {
    "denoiser": "model: {{name: {name}, shape: [1, 8, 8]}}",
    "restorer": "model:\n  name: {name}\n  shape: [1, 8, 8]\n"
    "  network: {{name: compact_unet, channels: [32, 32], unshuffle: 2}}\n"
    "  degradation: {{name: blur, levels: 8, kernel_size: 7, kernel_std: 0.3}}",
    "oneshot": "model: {{name: {name}, shape: [1, 8, 8]}}",
}

_NFE = {"denoiser": "    nfe: [1, 5, 9]\n", "restorer": "", "oneshot": ""}

_RECIPE = """\
# The training of {name}/digits: every key here determines the weights.
recipe: {name}/digits
{model}
dataset: {{name: digits, split: train}}
{objective}
optimiser: {{name: adam, lr: 1.0e-3}}
batch: 64
images: 12800
ema: {{half_life_images: 2000}}
seed: 0
"""

_CARDS = """\
digits:
  summary: {title} on 8x8 digits.
  recipe: recipes/digits.yaml
  shape: [1, 8, 8]
"""

_SUITE = """\
# cmbench run suites/{name}.yaml
suite: {name}
title: {title} on 8x8 digits
dataset: {{name: digits, split: train}}
images: {{count: 200}}
features: digits_classifier
metrics: [frechet_distance, precision_recall]
runs:
  - model: {name}/digits
{nfe}"""

_TEST = '''\
"""Tests that the plugin satisfies cmbench's contract; add tests of this model here."""

from cmbench.testing.model_contract import check_model


def test_{name}_satisfies_the_contract() -> None:
    verdict = check_model("{name}/digits")
    assert verdict.holds, [f for f in verdict.findings if not f.holds]
'''


def new_model(name: str, kind: Kind, folder: Path) -> list[Path]:
    """Writes `models/<name>/`, a suite and a test under `folder`; overwrites nothing.

    A call that was killed or met a full disk can be repeated: it writes the missing files.

    Args:
        name: The family's name: lower case, digits and underscores.
        kind: A denoiser in sigma-space, a restorer, or a one-call generator.
        folder: The folder of models/, suites/ and tests/.

    Returns:
        The files written.

    Raises:
        UserError: For a name that is not an identifier, or an existing file.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(
            f"'{name}' can't be a family's name",
            expected="lower-case letters, digits and underscores, starting with a letter",
        )
    words = {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "model": _MODELS[kind].format(name=name),
        "objective": _RECIPES[kind],
        "nfe": _NFE[kind],
    }
    family = folder / "models" / name
    texts = {
        family / "adapter.py": _ADAPTERS[kind],
        family / "cards.yaml": _CARDS,
        family / "recipes" / "digits.yaml": _RECIPE,
        folder / "suites" / f"{name}.yaml": _SUITE,
        folder / "tests" / f"test_{name}.py": _TEST,
    }
    written = {path: text.format(**words) for path, text in texts.items()}
    existing = [path for path in written if os.path.lexists(path)]
    # Files left by a killed call are kept; this call writes the rest.
    intact = [path for path in existing if _holds(path, written[path])]
    other = next((path for path in existing if path not in intact), None)
    if other is not None or len(intact) == len(written):
        raise UserError(
            f"{other or family} is there already", fix="choose another name, or remove it"
        )
    for path in written:
        refuse_unwritable(path)
    for path, text in written.items():
        if path not in intact:
            write_text(path, text)
    return list(written)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
