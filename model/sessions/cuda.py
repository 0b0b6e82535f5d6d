"""A graph on an NVIDIA GPU, or the reason why it cannot run there."""

import ctypes
from pathlib import Path

import onnxruntime

from model.errors import DeviceError
from model.sessions.onnx import CPU, CUDA, OnnxSession

OPTIONS = {
    "use_tf32": "0",  # the labels of the CPU, not nearly those
    "cudnn_conv_algo_search": "HEURISTIC",
}


def open_on_cuda(path: Path, data: bytes, threads: int = 0) -> OnnxSession:
    """Open a graph on the GPU and nowhere else.

    Raises:
        DeviceError: if it would not run there.
        ArtefactDamaged: if it is no graph.
    """
    if CUDA not in onnxruntime.get_available_providers():
        raise DeviceError(
            "CUDA cannot be had: the installed ONNX Runtime is built for the CPU alone. "
            "Install the extra `gpu` in place of `cpu`, in a fresh environment."
        )
    onnxruntime.preload_dlls()  # finds the CUDA libraries that Python packages bring
    session = OnnxSession(path, data, threads, [(CUDA, OPTIONS), CPU])
    if session.provider != "cuda":
        raise DeviceError(f"CUDA cannot be had: {_missing_libraries()}.")
    return session


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
