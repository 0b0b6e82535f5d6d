"""A graph in ONNX Runtime, with buffers on its device that stay from run to run."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.architecture import Architecture
from model.geometry import Geometry
from model.sessions.onnx import CPU, OnnxSession

Memory = tuple[Literal["cpu", "cuda"], int]
"""Whose memory the buffers lie in: a kind of device, and which one."""
Given = Literal["logits", "labels"]
"""What of a network a run gives."""

MOST_BUFFER_BYTES = 512 << 20
"""Buffers that are kept on a device; those used longest ago are given up for others."""


@dataclass(frozen=True, slots=True)
class _Buffers:
    """What one run reads and writes, bound for as long as it is kept."""

    tiles: Any
    result: Any
    binding: Any
    options: Any
    nbytes: int

    def run(self, session: Any, tiles: NDArray[np.float32]) -> NDArray[Any]:
        self.tiles.update_inplace(np.ascontiguousarray(tiles))
        session.run_with_iobinding(self.binding, self.options)
        return np.array(self.result.numpy())  # in the CPU's memory, that is the buffer itself


class BoundSession(OnnxSession):
    """ONNX Runtime, with a graph opened that decides, and its buffers. One thread may use it."""

    def __init__(
        self,
        path: Path,
        data: bytes,
        architecture: Architecture,
        memory: Memory,
        *,
        threads: int = 0,
        providers: Sequence[Any] = (CPU,),
        precision: str = "fp32",
        most_bytes: int = MOST_BUFFER_BYTES,
    ) -> None:
        """Open a graph; see `OnnxSession`.

        Args:
            path: Where it comes from.
            data: The serialised graph, its decision included.
            architecture: Of its network: what it gives for a tile of a size.
            memory: Where the buffers lie.
            threads: CPU threads of one inference; 0 is one a core.
            providers: What may run it, the most wanted first.
            precision: What the graph computes in.
            most_bytes: Buffers that are kept at least one run beyond their own.

        Raises:
            ArtefactDamaged: if that is no graph, or a provider does not take it.
        """
        super().__init__(path, data, threads, providers, precision=precision)
        self._architecture = architecture
        self._memory = memory
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[Given, tuple[int, ...]], _Buffers] = OrderedDict()
        self._numbers = count(1)

    @property
    def buffer_bytes(self) -> int:
        """What its buffers take."""
        return sum(buffers.nbytes for buffers in self._kept.values())

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W)."""
        logits: NDArray[np.float32] = self._buffers("logits", tiles).run(self._session, tiles)
        return logits

    def labels(self, tiles: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """Give the label maps (N, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W)."""
        labels: NDArray[np.uint8] = self._buffers("labels", tiles).run(self._session, tiles)
        return labels

    def _buffers(self, given: Given, tiles: NDArray[np.float32]) -> _Buffers:
        key = given, tiles.shape
        if key not in self._kept:
            self._kept[key] = self._bind(given, tiles.shape)
            while self.buffer_bytes > self._most_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _bind(self, given: Given, shape: tuple[int, ...]) -> _Buffers:
        batch, _, height, width = shape
        geometry = Geometry(self._architecture.depth)
        edges = geometry.output_edge(height), geometry.output_edge(width)
        classes = (self._architecture.num_classes,) if given == "logits" else ()
        dtype = np.float32 if given == "logits" else np.uint8
        written = batch, *classes, *edges
        empty = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        tiles, result = (
            empty(shape, np.float32, *self._memory),
            empty(written, dtype, *self._memory),
        )
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("tile", tiles)
        binding.bind_ortvalue_output(given, result)
        options = onnxruntime.RunOptions()
        # Where a run is recorded as a CUDA graph, it holds for these addresses alone.
        options.add_run_config_entry("gpu_graph_id", str(next(self._numbers)))
        nbytes = 4 * int(np.prod(shape)) + np.dtype(dtype).itemsize * int(np.prod(written))
        return _Buffers(tiles, result, binding, options, nbytes)
