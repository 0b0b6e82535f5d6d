"""What runs a graph: one session a device, behind one small protocol.

onnx.py    ONNX Runtime, on the CPU or with the providers that it is given
cuda.py    ONNX Runtime on an NVIDIA GPU, or a reason why not
"""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Provider = Literal["cpu", "cuda"]
"""Where a session runs."""


class Session(Protocol):
    """A graph, opened on one device."""

    @property
    def provider(self) -> Provider:
        """Where it runs, as what runs it says."""

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W).

        It may raise anything: what runs graphs documents no errors of its own.
        """
