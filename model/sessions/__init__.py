"""What runs a graph: one session a device, behind one small protocol.

onnx.py      ONNX Runtime, on the CPU or with the providers that it is given
openvino.py  OpenVINO on the CPU, or a reason why not
cpu.py       which of the two an artefact runs in; processor.py what the processor computes fast
cuda.py      ONNX Runtime on an NVIDIA GPU, or a reason why not
"""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Provider = Literal["cpu", "cuda", "openvino"]
"""What runs a graph, and so where: `cpu` is ONNX Runtime on the CPU."""


class Session(Protocol):
    """A graph, opened on one device."""

    @property
    def provider(self) -> Provider:
        """What runs it, as it says itself."""

    @property
    def device(self) -> str:
        """Where it runs, as what runs it says: `cpu`, or `cuda:` and the number of the GPU."""

    @property
    def precision(self) -> str:
        """What it computes in: `fp32` (never TF32), `fp16`, `int8` and so on."""

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W).

        It may raise anything: what runs graphs documents no errors of its own.
        """
