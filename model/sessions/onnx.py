"""A graph in ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.artefact import Port
from model.cores import usable_cores
from model.errors import ArtefactDamaged
from model.sessions import Provider

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"

PROVIDERS: Mapping[str, Provider] = {TENSORRT: "tensorrt", CUDA: "cuda", CPU: "cpu"}


class OnnxSession:
    """ONNX Runtime, with a graph opened."""

    def __init__(
        self,
        path: Path,
        data: bytes,
        threads: int = 0,
        providers: Sequence[Any] = (CPU,),
        *,
        precision: str = "fp32",
        optimise: bool = True,
    ) -> None:
        """Open a graph.

        Args:
            path: Where it comes from.
            data: The serialised graph.
            threads: CPU threads of one inference; 0 is one for each core that the process has.
            providers: What may run it, the most wanted first; ONNX Runtime passes over what it
                cannot have, so ask for `provider` afterwards.
            precision: What the graph computes in.
            optimise: Prepare it to run fast; without, it is open soon, to be read.

        Raises:
            ArtefactDamaged: if that is no graph.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or usable_cores()
        options.log_severity_level = 3
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # The arena stays as it is: it keeps what the largest tile took, so memory is flat. In 15
        # shapes up to 1212 px, at 32 channels, the peak was 881 MiB; without an arena 734, at 1.4
        # times the CPU time; shrunk after each run 819; grown by what is asked for alone, 1682.
        options.enable_mem_pattern = False  # tiles have many shapes; one pattern each would add up
        # Threads may spin within a run, to be there at once for its next part; between runs they
        # would take the cores from everything else, for 55 ms after each.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._precision = precision
        try:
            # With its fallback, it would go on by the CPU where the GPU fails, and print that.
            self._session: Any = onnxruntime.InferenceSession(
                data, options, providers=list(providers), enable_fallback=0
            )
        except Exception as exc:  # ONNX Runtime documents no errors of its own
            raise ArtefactDamaged(
                f"{path} is no ONNX graph that ONNX Runtime opens: truncated, damaged or not ONNX."
            ) from exc

    @property
    def provider(self) -> Provider:
        """What runs the graph, as the session itself says."""
        return PROVIDERS[self._session.get_providers()[0]]

    @property
    def device(self) -> str:
        """The device that runs the graph, as the session itself says."""
        first = self._session.get_providers()[0]
        if first == CPU:
            return "cpu"
        return f"cuda:{self._session.get_provider_options()[first]['device_id']}"

    @property
    def precision(self) -> str:
        """What the graph computes in."""
        return self._precision

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says beside the graph."""
        properties: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        return properties

    @property
    def inputs(self) -> Sequence[Port]:
        """What the graph takes."""
        ports: Sequence[Port] = self._session.get_inputs()
        return ports

    @property
    def outputs(self) -> Sequence[Port]:
        """What the graph gives."""
        ports: Sequence[Port] = self._session.get_outputs()
        return ports

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W)."""
        logits: NDArray[np.float32] = self._session.run(["logits"], {"tile": tiles})[0]
        return logits

    def labels(self, tiles: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """Give the label maps (N, H − 2·halo, W − 2·halo) of a graph that makes the decision."""
        labels: NDArray[np.uint8] = self._session.run(["labels"], {"tile": tiles})[0]
        return labels
