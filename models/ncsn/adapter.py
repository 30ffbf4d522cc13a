"""NCSN and NCSNv2 (Song and Ermon 2019, 2020; https://arxiv.org/abs/1907.05600, 2006.09011).

It covers the authors' networks and checkpoints, and networks trained here in the same
parametrisation.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.api import (
    ImageShape,
    Model,
    NCSNDenoiser,
    UserError,
    create,
    fill,
    from_ncsn,
    ladder,
    load_weights,
    ncsn_states,
    parsing,
    read_torch,
)

__all__ = ["NCSN"]

_DEPTHS = {"NCSNv2": "base", "NCSNv2Deeper": "deeper", "NCSNv2Deepest": "deepest"}


class NCSN(Model):
    """A score network and its ladder of noise levels; the defaults are NCSNv2's for CIFAR-10."""

    sampler: ClassVar[dict[str, Any] | None] = {"name": "annealed_langevin"}

    network: dict[str, Any] = Field(default_factory=lambda: {"name": "ncsnv2_refine_net"})
    shape: ImageShape = (3, 32, 32)
    conditional: bool = Field(
        default=False, description="condition the network on the level (NCSN)"
    )
    sigma_begin: float = Field(default=50.0, gt=0, description="greatest level, authors' units")
    sigma_end: float = Field(default=0.01, gt=0, description="least level, authors' units")
    levels: int = Field(default=232, ge=2, le=100_000)
    spacing: Literal["geometric", "uniform"] = "geometric"
    rescaled: bool = Field(
        default=False, description="levels refer to images in [-1, 1], not [0, 1]"
    )

    @classmethod
    def of_config(cls, config: Mapping[str, Any], kind: str | None = None) -> "NCSN":
        """Builds from an official configuration, {"data": ..., "model": ...}.

        Args:
            config: The file's contents.
            kind: Class of the network, `CondRefineNetDilated`, `NCSNv2`, `NCSNv2Deeper` or
                `NCSNv2Deepest`. By default NCSN's if the configuration has no `ema`, as in its
                files; otherwise it depends on the image's size, as in NCSNv2's runner.

        Raises:
            UserError: If the configuration's network is not supported.
        """
        data, model = config["data"], config["model"]
        _known(data, model)
        side = data["image_size"]
        if kind is None:
            by_side = "base" if side <= 64 else "deeper" if side <= 128 else "deepest"
            depth = by_side if "ema" in model else None
        elif kind == "CondRefineNetDilated" or kind in _DEPTHS:
            depth = _DEPTHS.get(kind)
        else:
            raise UserError(
                f"network '{kind}' is not supported",
                expected="CondRefineNetDilated, " + ", ".join(_DEPTHS),
            )
        count = model["num_classes"]
        network: dict[str, Any] = {"name": "ncsn_refine_net", "ngf": model["ngf"], "levels": count}
        if depth is not None:
            nonlinearity = model.get("nonlinearity", "elu")
            network = {
                "name": "ncsnv2_refine_net",
                "ngf": model["ngf"],
                "depth": depth,
                "nonlinearity": nonlinearity.lower(),
            }
        return cls(
            network=network,
            shape=(data["channels"], side, side),
            conditional=depth is None,
            sigma_begin=model["sigma_begin"],
            sigma_end=model["sigma_end"],
            levels=count,
            spacing=model.get("sigma_dist", "geometric"),
            rescaled=data.get("rescaled", False),
        )

    def build(self) -> nn.Module:
        """Builds an NCSNDenoiser over the raw network, `net`."""
        return NCSNDenoiser(
            create("network", self.network).build(self.shape),
            self.shape,
            self._ladder(),
            conditional=self.conditional,
            unit=1.0 if self.rescaled else 2.0,
        ).eval()

    def load(self, module: nn.Module, weights: Path) -> None:
        """Reads an official checkpoint (averaged weights if it has them), or our own safetensors.

        Raises:
            UserError: If the file is broken, holds anything but data, or has another architecture
                or ladder than this configuration.
        """
        if weights.suffix == ".safetensors":
            load_weights(module, weights)
            return
        where, net = str(weights), module.net
        with parsing(weights, "weights of this architecture"):
            used, raw = ncsn_states(read_torch(weights), where=where)
            self._check(raw.get("sigmas"), where)
            fill(net, from_ncsn(net, used), where=where)  # type: ignore[arg-type]

    def _ladder(self) -> Tensor:
        uniform = self.spacing == "uniform"
        return ladder(self.sigma_begin, self.sigma_end, self.levels, uniform=uniform)

    def _check(self, stored: Tensor | None, where: str) -> None:
        if stored is None:
            return
        ladder = self._ladder()
        if stored.shape != ladder.shape or not torch.allclose(stored.double(), ladder, rtol=1e-4):
            raise UserError(
                f"the file's ladder has {len(stored)} levels from {float(stored[0]):g} to "
                f"{float(stored[-1]):g}",
                where=where,
                expected=f"{self.levels} levels from {self.sigma_begin:g} to {self.sigma_end:g}, "
                "by the configuration",
            )


def _known(data: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuses options of the authors' code that no published configuration uses."""
    checks = {
        "logit_transform": (data.get("logit_transform", False), (False,)),
        "normalization": (model.get("normalization", "InstanceNorm++"), ("InstanceNorm++",)),
        "spec_norm": (model.get("spec_norm", False), (False,)),
        "batch_norm": (model.get("batch_norm", False), (False,)),
    }
    for key, (value, known) in checks.items():
        if value not in known:
            raise UserError(
                f"'{key}: {value}' of the configuration is not supported",
                expected=" or ".join(map(str, known)),
            )
    if not math.isfinite(model["sigma_begin"]) or model["sigma_begin"] <= model["sigma_end"]:
        raise UserError("sigma_begin must be above sigma_end")
