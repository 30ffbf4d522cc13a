"""Checks a model plugin against the rules of the contract, and names broken rules with their fix.

Networks without named weights get small random ones, so that no path is hidden behind a layer
that is initialised to zero. Nothing is trained and nothing is written.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmbench.cards.cards import PlacedCard, find_card
from cmbench.cards.open import card_model, open_card
from cmbench.core.errors import CmbenchError, UserError
from cmbench.core.loader import create, find
from cmbench.denoise.base import Denoiser
from cmbench.denoise.model import Model
from cmbench.samplers.base import Sampler
from cmbench.testing.denoiser_rules import DENOISER_RULES
from cmbench.testing.loading_rules import check_weights
from cmbench.testing.rule import Broken
from cmbench.testing.sampling_rules import SAMPLING_RULES

__all__ = ["Finding", "Verdict", "check_model"]

_UNSAFE = {"eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "os.system"}


@dataclass(frozen=True)
class Finding:
    """Result of one rule; for a broken one, the observation and its fix."""

    rule: str
    holds: bool
    seen: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Verdict:
    """Results of the rules on a model, in order; a broken rule ends those that depend on it."""

    model: str
    findings: list[Finding]

    @property
    def holds(self) -> bool:
        """True if no rule is broken."""
        return all(f.holds for f in self.findings)


def check_model(name: str, *, weights: Path | None = None) -> Verdict:
    """Checks every rule of the contract on the card `name` (`family/card`, or a family).

    Args:
        name: Name of the card.
        weights: Weights to load: a file, the folder of a training run, or a path that the
            family's `opened` accepts; by default the card's shipped weights, or random ones.

    Raises:
        UserError: If there is no such card or weights file, or the adapter can't be imported.
    """
    placed = find_card(name)
    if weights is None:
        model, file = card_model(placed), placed.weights_file
    else:
        model, file = open_card(placed, weights)
    return Verdict(placed.full_name, list(_findings(placed, model, file)))


def _findings(placed: PlacedCard, model: Model, file: Path | None) -> Iterator[Finding]:
    yield _try("its file runs no code from a weights file", lambda: _source(placed))
    modules: list[nn.Module] = []
    yield (
        finding := _try(
            "build returns the module it states", lambda: modules.append(_build(model))
        )
    )
    if not finding.holds:
        return
    module = modules[0]
    yield _try("the same seed builds the same weights", lambda: _same_build(model))
    for rule, check in check_weights(model, file).items():
        yield _try(rule, check)
    if file is not None:
        yield (finding := _try("its weights load", lambda: model.load(module, file)))
        if not finding.holds:
            return
    else:
        _randomise(module)
    module.requires_grad_(False)
    if isinstance(module, Denoiser):
        for rule, holds in DENOISER_RULES.items():
            yield _try(rule, partial(holds, module))
    samplers: list[Sampler] = []
    yield (finding := _try("it has a sampler", lambda: samplers.append(_sampler(placed, model))))
    if not finding.holds:
        return
    for rule, look in SAMPLING_RULES.items():
        yield _try(rule, partial(look, module, samplers[0]))


def _try(rule: str, check: Callable[[], Any]) -> Finding:
    try:
        with torch.no_grad():
            check()
    except Broken as broken:
        return Finding(rule, False, broken.seen, broken.fix)
    except UserError as error:
        return Finding(rule, False, error.what, error.fix or error.expected)
    except CmbenchError as error:
        return Finding(rule, False, str(error), "")
    except Exception as error:  # a plugin's fault is a finding and must not crash the check
        return Finding(rule, False, f"{type(error).__name__}: {error}", "see the adapter's code")
    return Finding(rule, True)


def _source(placed: PlacedCard) -> None:
    path = find("model", placed.family)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        unsafe = function in _UNSAFE or (function == "torch.load" and not _weights_only(node))
        if unsafe:
            raise Broken(
                f"{path.name}:{node.lineno} calls {function}, which can run code from a file",
                "read weights with cmbench.api.read_torch, read_edm or load_weights",
            )


def _weights_only(call: ast.Call) -> bool:
    keywords = {k.arg: k.value for k in call.keywords}
    value = keywords.get("weights_only")
    return value is None or (isinstance(value, ast.Constant) and value.value is True)


def _build(model: Model) -> nn.Module:
    torch.manual_seed(0)
    module = model.build()
    if not isinstance(module, nn.Module):
        raise Broken(f"build returned a {type(module).__name__}", "return a torch.nn.Module")
    if model.makes == {"denoiser"} and not isinstance(module, Denoiser):
        raise Broken(
            f"build returned a {type(module).__name__}, which is not a Denoiser",
            "derive it from cmbench.api.Denoiser, or set `makes`",
        )
    shape = getattr(module, "shape", None)
    if not isinstance(shape, tuple) or len(shape) != 3:
        raise Broken(f"its shape is {shape!r}", "set shape = (channels, height, width)")
    if module.training:
        module.eval()
    return module


def _same_build(model: Model) -> None:
    first, second = _build(model).state_dict(), _build(model).state_dict()
    for key, value in first.items():
        if not torch.equal(value, second[key]):
            raise Broken(
                f"'{key}' differs between two builds from one seed",
                "draw initial weights only from torch's global generator",
            )


def _randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


def _sampler(placed: PlacedCard, model: Model) -> Sampler:
    spec = placed.card.sampler or model.sampler
    if spec is None:
        raise UserError(
            f"model '{placed.full_name}' has no sampler of its own",
            fix='set sampler = {"name": ...} on the adapter or the card',
        )
    sampler: Sampler = create("sampler", spec)
    if "steps" in type(sampler).model_fields:
        for steps in (8, 4, 2, 3, 1):
            try:
                short = {"name": sampler.name, **sampler.model_dump(), "steps": steps}
                shorter: Sampler = create("sampler", short)
            except UserError:
                continue
            return shorter
    return sampler
