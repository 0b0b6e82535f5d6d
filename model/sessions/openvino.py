"""A graph in OpenVINO on the CPU, or the reason why not."""

from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.cores import usable_cores
from model.errors import DeviceError
from model.geometry import Geometry
from model.sessions import Provider

FloatPrecision = Literal["fp32", "bf16"]
"""What may be asked for where a graph computes in floats; its integers stay integers."""

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "u8": "int8", "i8": "int8"}


class OpenvinoSession:
    """OpenVINO, with a graph compiled for tiles of every size."""

    def __init__(
        self,
        path: Path,
        data: bytes,
        geometry: Geometry,
        threads: int = 0,
        precision: FloatPrecision = "fp32",
    ) -> None:
        """Compile a graph.

        Args:
            path: Where it comes from.
            data: The serialised graph.
            geometry: That of its network.
            threads: CPU threads of one inference; 0 is one for each core that the process has.
            precision: What its floats are wanted in; a processor without it computes in float32, so
                ask for `precision` afterwards.

        Raises:
            DeviceError: if OpenVINO is not installed, or does not compile the graph.
        """
        self._geometry = geometry
        openvino = _import()
        try:
            core = openvino.Core()
            graph = core.read_model(data)
            _, channels, *_ = graph.input("tile").partial_shape
            # Of edges it compiles any. Where the batch was open too, a graph in integers gave wrong
            # logits (2026.4.1, AVX2), so tiles are run one by one, from which a CPU loses nothing.
            graph.reshape({"tile": [1, channels, -1, -1]})
            compiled = core.compile_model(graph, "CPU", _options(threads, precision))
            self._precision = _precision_of(compiled)
            self._request: Any = compiled.create_infer_request()
        except Exception as exc:  # OpenVINO documents no errors of its own
            raise DeviceError(f"OpenVINO cannot run {path}: {exc}") from exc

    @property
    def provider(self) -> Provider:
        """What runs it."""
        return "openvino"

    @property
    def device(self) -> str:
        """Where it runs."""
        return "cpu"

    @property
    def precision(self) -> str:
        """What most convolutions compute in, as the compiled graph says: asked for is not had."""
        return self._precision

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W)."""
        return np.concatenate([self._run_one(tile[np.newaxis]) for tile in tiles])

    def _run_one(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        for edge in tile.shape[2:]:
            self._geometry.output_edge(edge)  # given one that does not fit, OpenVINO answers, too
        given = self._request.infer({"tile": np.ascontiguousarray(tile)}, share_inputs=True)
        logits: NDArray[np.float32] = given["logits"]
        return logits


def _options(threads: int, precision: FloatPrecision) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": threads or usable_cores(),
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Code that is made for a shape is kept for the next tile of it, 5000 pieces unless told
        # otherwise: then memory grew over 150 shapes by half, and did not with this.
        "CPU_RUNTIME_CACHE_CAPACITY": 100,
        "ENABLE_CPU_PINNING": False,  # decoders and the event loop want their turns on all cores
    }


def _precision_of(compiled: Any) -> str:
    notes = [node.rt_info for node in compiled.get_runtime_model().get_ops()]
    found: Counter[str] = Counter(
        note["runtimePrecision"].astype(str)
        for note in notes
        if note["layerType"].astype(str) == "Convolution"
    )
    ((most, _),) = found.most_common(1)
    return _NAMES.get(most, most)


def _import() -> ModuleType:
    """Import OpenVINO now, and not before it is wanted: it takes most of a second.

    Raises:
        DeviceError: if it is not installed.
    """
    try:
        return import_module("openvino")
    except ImportError as exc:
        raise DeviceError(
            f"OpenVINO cannot be had ({exc}). Install the extra `openvino` beside `cpu`."
        ) from exc
