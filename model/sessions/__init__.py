"""What runs a graph: one session a device, behind one small protocol.

onnx.py      ONNX Runtime, on the CPU or with the providers that it is given
openvino.py  OpenVINO on the CPU, or a reason why not
cpu.py       which of the two an artefact runs in; processor.py what the processor computes fast
bound.py     ONNX Runtime, with buffers on its device that stay from run to run
cuda.py      the same on an NVIDIA GPU, with TensorRT if asked, or a reason why not
decision.py  the manifest's decision, as a part of the graph
half.py      a graph that computes in float16, made from one that computes in float32
graph.py, protobuf.py   as much of ONNX's format as these two write
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Provider = Literal["cpu", "openvino", "cuda", "tensorrt"]
"""What runs a graph, and so where: `cpu` is ONNX Runtime on the CPU."""
ON_GPU: frozenset[Provider] = frozenset({"cuda", "tensorrt"})
"""Those that gain from a batch, and want few shapes."""


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


@runtime_checkable
class DecidingSession(Session, Protocol):
    """A session that decides where its logits are, so that one byte a pixel comes back."""

    def labels(self, tiles: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """Give the label maps (N, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W).

        It may raise anything, as `run` may.
        """
