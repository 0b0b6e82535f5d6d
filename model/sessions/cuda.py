"""A graph on an NVIDIA GPU, or the reason why it cannot run there."""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime

from model.artefact import Manifest
from model.errors import ArtefactDamaged, DeviceError
from model.sessions.bound import BoundSession, Memory
from model.sessions.decision import decision
from model.sessions.half import in_float16
from model.sessions.onnx import CPU, CUDA, PROVIDERS, TENSORRT

MOST_TILES = 4
"""Tiles of one batch, which TensorRT prepares for."""

NAMES: Mapping[str, str] = {CUDA: "CUDA", TENSORRT: "TensorRT"}
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    CUDA: ("libcuda.so.1", "libonnxruntime_providers_cuda.so"),
    TENSORRT: ("libcuda.so.1", "libnvinfer.so.10", "libonnxruntime_providers_tensorrt.so"),
}

GpuPrecision = Literal["fp32", "fp16"]


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """How a GPU is used.

    The service sets precision, TensorRT's folder and the largest edge; the other fields are for
    benchmarks/gpu/, which weighs them: what a GPU is served with are their defaults.
    """

    precision: GpuPrecision = "fp32"
    """`fp32` gives the labels of the CPU, off ties; `fp16` lets the tensor cores compute."""
    search: Literal["HEURISTIC", "EXHAUSTIVE"] = "HEURISTIC"
    """How cuDNN's algorithm for a convolution is found: for every shape anew, so exhaustive search
    is slow to warm up."""
    channels_last: bool = False
    """Lay activations out as (N, H, W, C)."""
    graphs: bool = False
    """Record the runs of a shape, and replay them with one call."""
    tensorrt_cache: Path | None = None
    """Folder of TensorRT's engines; None is without TensorRT."""
    largest_edge: int = 0
    """Largest edge of tiles, in px, for which TensorRT's engine is made; 0 is the smallest one."""


DEFAULT = CudaOptions()
_FLAG = {False: "0", True: "1"}


def open_on_cuda(
    path: Path,
    data: bytes,
    manifest: Manifest,
    gpu: int = 0,
    options: CudaOptions = DEFAULT,
    memory: Literal["cpu", "cuda"] = "cuda",
) -> BoundSession:
    """Open a verified artefact on one GPU and nowhere else.

    Args:
        path: Where it comes from.
        data: The whole file.
        manifest: Its manifest.
        gpu: Which GPU, from 0, among those that CUDA shows.
        options: How it is used.
        memory: Where its buffers lie.

    Raises:
        DeviceError: if it would not run there, or not as the options ask.
    """
    wanted = CUDA if options.tensorrt_cache is None else TENSORRT
    name = NAMES[wanted]
    if wanted not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"{name} cannot be had: the installed ONNX Runtime is built without it. "
            "Install the extra `gpu` in place of `cpu`, in a fresh environment."
        )
    onnxruntime.preload_dlls()  # finds the CUDA libraries that Python packages bring
    graph, precision = _graph_for(data, manifest, options)
    place: Memory = memory, gpu
    try:
        session = BoundSession(
            path,
            graph + decision(manifest),
            manifest.architecture,
            place,
            providers=providers(manifest, gpu, options),
            precision=precision,
        )
    except ArtefactDamaged as exc:  # it is none: it was opened on the CPU before
        raise DeviceError(f"{name} does not open {path.name}: {exc.__cause__}") from exc
    if session.provider != PROVIDERS[wanted]:
        raise DeviceError(f"{name} cannot be had: {_missing_libraries(wanted)}.")
    if session.device != f"cuda:{gpu}":
        raise DeviceError(f"{name} ran {path.name} on {session.device} in place of cuda:{gpu}.")
    return session


def providers(manifest: Manifest, gpu: int, options: CudaOptions) -> list[Any]:
    """List what may run a graph on a GPU, the most wanted first.

    The CPU stands last for ONNX Runtime, which wants it there.
    """
    cuda = {
        "device_id": str(gpu),
        "use_tf32": "0",  # float32 is float32: the labels of the CPU, not nearly those
        "cudnn_conv_algo_search": options.search,
        "prefer_nhwc": _FLAG[options.channels_last],
        "enable_cuda_graph": _FLAG[options.graphs],
    }
    if options.tensorrt_cache is None:
        return [(CUDA, cuda), CPU]
    return [
        (TENSORRT, _tensorrt(manifest, gpu, options, options.tensorrt_cache)),
        (CUDA, cuda),
        CPU,
    ]


def _tensorrt(manifest: Manifest, gpu: int, options: CudaOptions, cache: Path) -> dict[str, str]:
    """Say for which tiles an engine is made: all, or each new size would cost minutes."""
    geometry, channels = manifest.geometry, manifest.architecture.in_channels
    least = geometry.smallest_edge
    most = geometry.edge_at_most(max(options.largest_edge, geometry.smallest_tiling_edge))
    smallest, largest = (
        f"tile:{batch}x{channels}x{edge}x{edge}" for batch, edge in ((1, least), (MOST_TILES, most))
    )
    return {
        "device_id": str(gpu),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_fp16_enable": _FLAG[options.precision == "fp16"],
        "trt_profile_min_shapes": smallest,
        "trt_profile_max_shapes": largest,
        "trt_profile_opt_shapes": largest,
        "trt_cuda_graph_enable": _FLAG[options.graphs],
    }


def _graph_for(data: bytes, manifest: Manifest, options: CudaOptions) -> tuple[bytes, str]:
    """Give what is opened, and what it computes in."""
    if manifest.precision == "int8":
        if options.tensorrt_cache is not None:
            raise DeviceError(f"{manifest.name} is int8, which is not given to TensorRT.")
        return data, "fp32"  # CUDA turns int8 into float32 before it computes
    if options.precision == "fp32":
        return data, "fp32" if options.tensorrt_cache is None else "tf32"  # as TensorRT may
    try:
        return in_float16(data), "fp16"
    except ValueError as exc:
        raise DeviceError(f"{manifest.name} cannot compute in float16: {exc}.") from exc


def _missing_libraries(provider: str) -> str:
    """Say which libraries keep ONNX Runtime from a provider, as the dynamic linker does."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    missing: list[str] = []
    for library in LIBRARIES[provider]:
        try:
            ctypes.CDLL(str(folder / library) if "onnxruntime" in library else library)
        except OSError as exc:
            missing.append(str(exc))
    if missing:
        return f"libraries are missing ({'; '.join(missing)})"
    return "all its libraries load, but it finds no device; see `nvidia-smi`"
