"""The memory of a GPU, asked of a driver that only looks like one."""

# ruff: noqa: N802 (the driver has these names)

from typing import Any

import pytest

from model.sessions.gpu_memory import GpuMemory, gpu_memory

NO_DEVICE = 101


class Driver:
    """One GPU, number 1, with 6 of 16 bytes free; every context is counted."""

    def __init__(self) -> None:
        self.retained = 0
        self.stack: list[Any] = []
        self.is_broken = False

    def cuInit(self, flags: int) -> int:
        return flags

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = 7
        return 0 if number == 1 else NO_DEVICE

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        assert device.value == 7
        context._obj.value = 4711
        self.retained += 1
        return 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        self.stack.append(context.value)
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:
        assert self.stack == [4711]
        free._obj.value, total._obj.value = 6, 16
        return 999 if self.is_broken else 0

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        context._obj.value = self.stack.pop()
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        assert device.value == 7
        self.retained -= 1
        return 0


def test_it_is_what_is_not_free() -> None:
    driver = Driver()
    assert gpu_memory(1, driver) == GpuMemory(used_bytes=10, total_bytes=16)
    assert (driver.retained, driver.stack) == (0, [])


def test_no_context_is_left_where_the_driver_refuses() -> None:
    driver = Driver()
    driver.is_broken = True
    with pytest.raises(OSError, match="refused cuMemGetInfo_v2: error 999"):
        gpu_memory(1, driver)
    assert (driver.retained, driver.stack) == (0, [])


def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(OSError, match=f"refused cuDeviceGet: error {NO_DEVICE}"):
        gpu_memory(2, Driver())
