"""The shape of a U-Net, as one frozen value."""

from dataclasses import dataclass
from typing import Literal

from model.errors import GeometryError

Variant = Literal["paper", "release"]
LARGEST_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a network is built from; two equal architectures take the same parameters.

    Source: Ronneberger et al. 2015, figure 1.
    """

    in_channels: int = 1
    """Channels of the image."""
    num_classes: int = 2
    """Channels of the logits."""
    depth: int = 4
    """Number of 2×2 poolings."""
    base_channels: int = 64
    """Channels of the first level; each level down doubles them."""
    variant: Variant = "paper"
    """`release` has, as the authors' published network, a ReLU after every up-convolution and
    twice the channels in the last one."""

    def __post_init__(self) -> None:
        """Reject numbers that no network can have.

        Raises:
            GeometryError: naming the field and what was found.
        """
        if not 1 <= self.depth <= LARGEST_DEPTH:
            raise GeometryError(f"depth must be 1 to {LARGEST_DEPTH}; found {self.depth}.")
        if self.num_classes < 2:
            raise GeometryError(f"num_classes must be 2 or more; found {self.num_classes}.")
        for name in ("in_channels", "base_channels"):
            if getattr(self, name) < 1:
                raise GeometryError(f"{name} must be 1 or more; found {getattr(self, name)}.")

    def channels(self, level: int) -> int:
        """Channels of a level; level 0 is the top."""
        return self.base_channels << level
