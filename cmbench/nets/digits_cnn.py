"""A small classifier of 8x8 digits, whose feature maps are the distance digits_lpips.

The judge of digits (features/digits_classifier) is another network with a training of its own: one
network for both would let training aim at its own judge.

    python -m cmbench.nets.digits_cnn     trains it again and prints its test accuracy
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as nnf

from cmbench.core.bounds import Width
from cmbench.core.images import to_images
from cmbench.nets.base import Network

__all__ = ["DigitsCNN", "DigitsConvNet", "train_classifier"]


class DigitsConvNet(nn.Module):
    """Three 3x3 convolutions, a hidden layer of 64 and ten logits, for images (B, 1, 8, 8)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(1, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 3, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            ]
        )
        self.hidden, self.last = nn.Linear(8 * width, 64), nn.Linear(64, 10)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Returns the three feature maps after ReLU, of sides 8, 4 and 2."""
        maps, h = [], images
        for i, layer in enumerate(self.convolutions):
            h = nnf.relu(layer(nnf.avg_pool2d(h, 2) if i else h))
            maps.append(h)
        return maps

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns hidden features (B, 64) and logits (B, 10) of images in [-1, 1]."""
        pooled = self.maps(images)[-1].flatten(1)
        hidden = nnf.relu(self.hidden(pooled))
        return hidden, self.last(hidden)


class DigitsCNN(Network):
    """The classifier as a component; `width` is the number of channels of the first layer."""

    width: Width = 16

    def build(self, shape: tuple[int, int, int], classes: int = 0) -> nn.Module:
        """Builds the classifier with random weights; the shape must be (1, 8, 8)."""
        if tuple(shape) != (1, 8, 8):
            raise ValueError(f"digits_cnn takes images (1, 8, 8), not {tuple(shape)}")
        return DigitsConvNet(self.width)


def train_classifier(width: int, seed: int, *, epochs: int = 60) -> tuple[DigitsConvNet, float]:
    """Trains a classifier on the noisy training split; returns it and its test accuracy."""
    from cmbench.datasets.digits import Digits

    train, test = Digits(split="train").open(), Digits(split="test").open()
    images = to_images(torch.from_numpy(train.pixels(range(len(train)))))
    labels = torch.from_numpy(train.labels())
    torch.manual_seed(seed)
    net = DigitsConvNet(width)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for batch_index in torch.randperm(len(images)).split(64):
            batch = images[batch_index] + 0.2 * torch.randn(len(batch_index), 1, 8, 8)
            optimiser.zero_grad()
            nnf.cross_entropy(net(batch)[1], labels[batch_index]).backward()
            optimiser.step()
        plan.step()
    net.eval().requires_grad_(False)
    test_images = to_images(torch.from_numpy(test.pixels(range(len(test)))))
    correct = net(test_images)[1].argmax(1) == torch.from_numpy(test.labels())
    return net, float(correct.float().mean())


def _write_weights() -> float:
    """Trains the network that ships in distances/data; returns its test accuracy."""
    torch.set_num_threads(1)
    net, accuracy = train_classifier(width=12, seed=2)
    data = Path(__file__).parent.parent / "distances" / "data"
    save_file(net.state_dict(), data / "digits_cnn.safetensors")
    return accuracy


if __name__ == "__main__":
    import sys

    sys.stdout.write(f"test accuracy: {_write_weights()}\n")
