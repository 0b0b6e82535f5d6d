"""A turn: what its tiles cost, and of what it died."""

import pytest

from model.errors import InferenceFailed
from model.geometry import flops
from service import turn
from service.models.loaded import Loaded
from service.turn import is_out_of_memory, steps_of
from tests.conftest import square
from tests.service.recording import EDGE, MANIFEST, RecordingRuntime, work

CONV = "Non-zero status code returned while running Conv node. Name:'conv' Status Message: "
WHERE = " ; GPU=0 ; hostname=host ; file=conv.cc ; line=507 ; expr=cudnnBackendExecute(handle)"


@pytest.mark.parametrize(
    "message",
    [
        f"{CONV}CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED{WHERE}",
        f"{CONV}CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED{WHERE}",
        f"{CONV}CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED{WHERE}",
        f"{CONV}CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED{WHERE}",
        f"{CONV}CUDA failure 2: out of memory{WHERE}",
        f"{CONV}Failed to allocate memory for requested buffer of size 4294967296",
        f"{CONV}Available memory of 19968 is smaller than requested bytes of 1572864",
        "CUDA_ERROR_OUT_OF_MEMORY",
        "bad allocation",
        "std::bad_alloc",
    ],
)
def test_a_want_of_memory_is_known_by_its_message(message: str) -> None:
    error = InferenceFailed("The runtime failed on a batch of 1×1×572×572.")
    error.__cause__ = RuntimeError(message)
    assert is_out_of_memory(error)


def test_a_want_of_memory_is_known_by_its_kind() -> None:
    assert is_out_of_memory(MemoryError())


@pytest.mark.parametrize(
    "message",
    [
        f"{CONV}CUDNN failure 4000: CUDNN_STATUS_INTERNAL_ERROR{WHERE}",
        f"{CONV}CUDNN failure 4005: CUDNN_STATUS_INTERNAL_ERROR_BAD_LAUNCH_PARAM{WHERE}",
        f"{CONV}CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED{WHERE}",
        f"{CONV}CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED{WHERE}",
        f"{CONV}CUDA failure 700: an illegal memory access was encountered{WHERE}",
        f"{CONV}CUDA failure 999: unknown error{WHERE}",
        "Got invalid dimensions for input: tile",
    ],
)
def test_another_error_is_not_taken_for_a_want_of_memory(message: str) -> None:
    error = InferenceFailed("The runtime failed on a batch of 1×1×572×572.")
    error.__cause__ = RuntimeError(message)
    assert not is_out_of_memory(error)


def test_what_tiles_of_one_shape_cost_is_reckoned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reckoned: list[tuple[object, ...]] = []

    def reckon(*arguments: object) -> int:
        reckoned.append(arguments)
        return 7

    monkeypatch.setattr(turn, "flops", reckon)
    image = work(1, tiles=50)
    steps = list(steps_of(Loaded([RecordingRuntime()], square(EDGE)), image, image.plan))
    assert [step.item.tile for step in steps] == list(image.plan.tiles)
    assert {step.work for step in steps} == {7}
    assert reckoned == [(MANIFEST.architecture, (EDGE, EDGE))]


def test_a_step_costs_the_work_of_its_tile() -> None:
    image = work(1, tiles=2)
    steps = steps_of(Loaded([RecordingRuntime()], square(EDGE)), image, image.plan)
    assert [step.work for step in steps] == [flops(MANIFEST.architecture, (EDGE, EDGE))] * 2
