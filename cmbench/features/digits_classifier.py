"""A small classifier of 8x8 handwritten digits, for suites that run in seconds on a CPU.

pool = relu(A x + a) (64), logits = B pool + b (10), x = pixels / 255. It was trained on the
training split of scikit-learn's digits (test accuracy 0.967) by `train_digits_classifier`:
full-batch Adam in float64 on one thread, so that only the seed is random. The weights are beside
this file.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cmbench.core.digests import file_sha256
from cmbench.core.errors import UserError
from cmbench.features.base import Extractor, FeatureExtractor

__all__ = ["DigitsClassifier", "train_digits_classifier"]

_WEIGHTS = Path(__file__).parent / "data" / "digits_classifier.safetensors"


class DigitsClassifier(FeatureExtractor):
    """Hidden units (pool, 64) and class scores (logits, 10) of 8x8 grey images."""

    layers: ClassVar[dict[str, int]] = {"pool": 64, "logits": 10}
    distance_name: ClassVar[str] = "FD-digits"
    plain_titles: ClassVar[bool] = True

    def weights_digest(self) -> str:
        """SHA-256 of the weights file."""
        return file_sha256(_WEIGHTS)

    def build(self, device: torch.device) -> Extractor:
        """Builds the classifier with the shipped weights."""
        extractor = _Extractor()
        extractor.load_state_dict(load_file(_WEIGHTS))
        return extractor.requires_grad_(False).eval().to(device)


class _Extractor(Extractor):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        if tuple(pixels.shape[1:]) != (1, 8, 8):
            raise UserError(
                f"digits_classifier got images {tuple(pixels.shape[1:])}", expected="(1, 8, 8)"
            )
        pool = torch.relu(self.hidden(pixels.flatten(1).to(self.head.weight.dtype) / 255))
        return {"pool": pool, "logits": self.head(pool)}


def train_digits_classifier(path: Path | None = None, *, steps: int = 400) -> float:
    """Trains the weights, writes them if `path` is given, and returns the test accuracy.

    The training split is every index but 4, 9, 14, ..., as in the dataset `digits`.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(np.round(data.images * (255 / 16)).astype(np.uint8)[:, None])
    labels, test = torch.from_numpy(data.target), torch.arange(len(data.target)) % 5 == 4
    net = _initial().double()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-4)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(pixels[~test])["logits"], labels[~test])
        torch.autograd.backward(loss)
        optimiser.step()
    net = net.float()
    if path is not None:
        save_file(net.state_dict(), path)
    correct = net(pixels[test])["logits"].argmax(1) == labels[test]
    return float(correct.double().mean())


def _initial() -> _Extractor:
    net, draw = _Extractor(), np.random.Generator(np.random.Philox(key=0))
    with torch.no_grad():
        for layer in (net.hidden, net.head):
            scale = (2 / layer.in_features) ** 0.5
            layer.weight.copy_(torch.from_numpy(draw.normal(0, scale, tuple(layer.weight.shape))))
            layer.bias.zero_()
    return net
