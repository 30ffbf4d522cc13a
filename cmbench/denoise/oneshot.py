"""The contract of a one-shot generator, such as a GAN's: one call from a latent to an image."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["OneShot"]


class OneShot(nn.Module, ABC):
    """Maps a standard normal latent to an image.

    Args:
        shape: Shape of one image, (C, H, W).
        latent: Dimension of the latent.
        classes: Number of class labels; 0 for an unconditional model.
    """

    def __init__(self, shape: tuple[int, int, int], latent: int, *, classes: int = 0) -> None:
        super().__init__()
        self.shape, self.latent, self.classes = shape, latent, classes

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] from latents z (B, latent)."""

    def networks(self) -> list[nn.Module]:
        """Returns the module itself, whose calls are counted."""
        return [self]
