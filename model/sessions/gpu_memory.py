"""What the memory of a GPU holds, as the driver says."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LIBRARY = "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Of one GPU, whoever uses it."""

    used_bytes: int
    total_bytes: int


def gpu_memory(gpu: int, driver: Any = None) -> GpuMemory:
    """Ask the driver about a GPU that this process uses.

    Args:
        gpu: Its number among those that CUDA shows, which is also that of ONNX Runtime.
        driver: CUDA's driver library; None loads it.

    Raises:
        OSError: if there is no driver, or it refuses.
    """
    driver = driver or ctypes.CDLL(LIBRARY)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with _current(driver, gpu):
        _ask(driver.cuMemGetInfo_v2, ctypes.byref(free), ctypes.byref(total))
    return GpuMemory(total.value - free.value, total.value)


@contextmanager
def _current(driver: Any, gpu: int) -> Iterator[None]:
    """Make a GPU the one that this thread asks about, in the context that ONNX Runtime is in."""
    device, context, popped = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    _ask(driver.cuInit, 0)
    _ask(driver.cuDeviceGet, ctypes.byref(device), gpu)
    _ask(driver.cuDevicePrimaryCtxRetain, ctypes.byref(context), device)
    try:
        _ask(driver.cuCtxPushCurrent_v2, context)
        try:
            yield
        finally:
            _ask(driver.cuCtxPopCurrent_v2, ctypes.byref(popped))
    finally:
        _ask(driver.cuDevicePrimaryCtxRelease_v2, device)


def _ask(function: Any, *arguments: Any) -> None:
    if code := function(*arguments):
        raise OSError(f"CUDA's driver refused {function.__name__}: error {code}")
