"""LPIPS (Zhang et al. 2018, https://arxiv.org/abs/1801.03924), computed by its own package.

As in the consistency-models paper, images below 256 pixels are resized to 224 (`size`). The
package contains the linear weights. The trunk's weights are torchvision's: the assets
`vgg16-397923af` and `alexnet-owt-7be5be79`, or `weights`, or a file in torch's hub cache.
"""

import os
import warnings
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.assets.download import asset_path
from cmbench.core.errors import UserError
from cmbench.core.files import parsing, regular_file
from cmbench.distances.base import Distance

__all__ = ["LPIPS"]

_TRUNKS = {"vgg": "vgg16-397923af", "alex": "alexnet-owt-7be5be79"}


class LPIPS(Distance):
    """The published distance; with a small network it takes most of a training step's time."""

    transport: ClassVar[frozenset[str]] = frozenset({"weights"})

    net: Literal["vgg", "alex"] = "vgg"
    size: int | None = Field(
        default=224, ge=32, le=4096, description="side of the resized image; none: no resizing"
    )
    weights: str | None = Field(default=None, description="file of torchvision's trunk weights")

    def build(self, device: torch.device) -> nn.Module:
        """Builds the distance with its frozen network.

        Raises:
            Pending: If the trunk's weights are not on this machine.
        """
        file = self._file()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lpips

            # pnet_rand: otherwise the package would download the trunk.
            net = lpips.LPIPS(net=self.net, pnet_rand=True, verbose=False)
        _load_trunk(net.net, file)
        return _LPIPS(net.eval().requires_grad_(False).to(device), self.size)

    def _file(self) -> Path:
        given = self.weights or os.environ.get(
            f"CMBENCH_{_TRUNKS[self.net].split('-')[0].upper()}"
        )
        if given:
            if not Path(given).is_file():
                raise UserError(f"weights {given} do not exist")
            return Path(given)
        cached = Path(torch.hub.get_dir()) / "checkpoints" / f"{_TRUNKS[self.net]}.pth"
        return cached if cached.is_file() else asset_path(_TRUNKS[self.net])


class _LPIPS(nn.Module):
    def __init__(self, net: nn.Module, size: int | None) -> None:
        super().__init__()
        self.net, self.size = net, size

    def train(self, mode: bool = True) -> "_LPIPS":
        """Stays in evaluation mode, as the package's dropout would make the distance random."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        distance: Tensor = self.net(self._seen(x), self._seen(y))
        return distance.flatten(1).sum(1)

    def _seen(self, images: Tensor) -> Tensor:
        coloured = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        if self.size is None or coloured.shape[-1] >= 256:
            return coloured
        return nnf.interpolate(coloured, (self.size, self.size), mode="bilinear")


def _load_trunk(trunk: nn.Module, file: Path) -> None:
    """Loads torchvision's `features.N` as the package's `sliceK.N`."""
    with parsing(regular_file(file, "weights file"), "torchvision's weights"):
        state = torch.load(file, map_location="cpu", weights_only=True)
        names = trunk.state_dict()
        trunk.load_state_dict({k: state[f"features.{k.partition('.')[2]}"] for k in names})
