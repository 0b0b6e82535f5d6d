"""One artefact, opened in ONNX Runtime on one device, and honest about which."""

import ctypes
import logging
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.artefact import (
    Artefact,
    Manifest,
    read_bytes,
    read_manifest,
    verify_digest,
    verify_ports,
)
from model.errors import ArtefactDamaged, DeviceError, InferenceFailed

Device = Literal["auto", "cpu", "cuda"]
Provider = Literal["cpu", "cuda"]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
CUDA_OPTIONS = {
    "use_tf32": "0",  # the labels of the CPU, not nearly those
    "cudnn_conv_algo_search": "HEURISTIC",
}

log = logging.getLogger(__name__)


class Runtime:
    """A session that is known to run where it says it runs."""

    def __init__(self, path: Path, device: Device = "auto", threads: int = 0) -> None:
        """Open and verify an artefact.

        Args:
            path: The `.onnx` file.
            device: `cuda` must be had or it is an error; `auto` takes it where it can be had.
            threads: CPU threads of one inference; 0 is one a core.

        Raises:
            ArtefactError: if the file cannot be served; the subclass says why.
            DeviceError: if `cuda` was asked for and would not run the model.
        """
        refuse_two_runtimes()
        data = read_bytes(path)
        self._session = _open(path, data, device, threads)
        properties = self._session.get_modelmeta().custom_metadata_map
        manifest = read_manifest(path, properties)
        verify_ports(path, manifest, self._session.get_inputs(), self._session.get_outputs())
        self.artefact: Artefact = verify_digest(path, data, manifest, properties)

    @property
    def manifest(self) -> Manifest:
        """What the artefact says about itself."""
        return self.artefact.manifest

    @property
    def provider(self) -> Provider:
        """The device that runs the model, as the session itself says."""
        return "cuda" if self._session.get_providers()[0] == CUDA else "cpu"

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W).

        Raises:
            InferenceFailed: if ONNX Runtime does.
        """
        try:
            logits: NDArray[np.float32] = self._session.run(["logits"], {"tile": tiles})[0]
        except Exception as exc:  # ONNX Runtime documents no errors of its own
            shape = "×".join(map(str, tiles.shape))
            raise InferenceFailed(f"The runtime failed on a batch of {shape}.") from exc
        return logits

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        """Run empty tiles of one shape, so that no request pays for the first run of it."""
        channels = self.manifest.architecture.in_channels
        self.run(np.zeros((batch, channels, *tile_shape), np.float32))


def refuse_two_runtimes() -> None:
    """Refuse an environment in which two distributions share the folder `onnxruntime`.

    Raises:
        DeviceError: if both are installed.
    """
    if {"onnxruntime", "onnxruntime-gpu"} <= _distributions():
        raise DeviceError(
            "Both onnxruntime and onnxruntime-gpu are installed; they overwrite each other. "
            "Make a fresh environment with one of the extras `cpu` and `gpu`."
        )


def _open(path: Path, data: bytes, device: Device, threads: int) -> Any:
    if device == "cpu":
        return _session(path, data, [CPU], threads)
    try:
        session = _session_on_cuda(path, data, threads)
    except DeviceError as exc:
        if device == "cuda":
            raise
        log.info("running on the CPU: %s", exc)
        session = _session(path, data, [CPU], threads)
    return session


def _session_on_cuda(path: Path, data: bytes, threads: int) -> Any:
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(
            "CUDA cannot be had: the installed ONNX Runtime is built for the CPU alone. "
            "Install the extra `gpu` in place of `cpu`, in a fresh environment."
        )
    onnxruntime.preload_dlls()  # finds the CUDA libraries that Python packages bring
    session = _session(path, data, [(CUDA, CUDA_OPTIONS), CPU], threads)
    if session.get_providers()[0] != CUDA:
        raise DeviceError(f"CUDA cannot be had: {_missing_libraries()}.")
    return session


def _session(path: Path, data: bytes, providers: list[Any], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # tiles have many shapes; a pattern for each would add up
    # Threads that spin between runs would take the cores from everything else.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as exc:  # ONNX Runtime documents no errors of its own
        raise ArtefactDamaged(
            f"{path} is no ONNX graph that ONNX Runtime opens: truncated, damaged or not ONNX."
        ) from exc


def _missing_libraries() -> str:
    """Say which libraries keep ONNX Runtime from CUDA, as the dynamic linker does."""
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    missing: list[str] = []
    for library in ("libcuda.so.1", str(provider)):
        try:
            ctypes.CDLL(library)
        except OSError as exc:
            missing.append(str(exc))
    if missing:
        return f"libraries are missing ({'; '.join(missing)})"
    return "all its libraries load, but it finds no device; see `nvidia-smi`"


def _distributions() -> set[str]:
    return {
        name
        for name in ("onnxruntime", "onnxruntime-gpu")
        if any(metadata.distributions(name=name, path=sys.path))
    }
