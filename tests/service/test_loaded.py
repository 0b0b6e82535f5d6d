"""A model that is served: warmed up, and asked for less where it fails."""

import threading

import pytest

from model.errors import InferenceFailed
from model.planner import TileShapes
from service.loaded import MOST_FAILURES, TILES_A_RUN, Loaded
from tests.conftest import square
from tests.service.recording import EDGE, FEW, MANIFEST, OTHER_EDGE, RecordingRuntime

SMALLEST = MANIFEST.geometry.smallest_tiling_edge


def warmed_up(*runtimes: RecordingRuntime, shapes: TileShapes = FEW) -> Loaded:
    model = Loaded(runtimes, shapes)
    assert model.state == "warming-up"
    model.warm_up(threading.Event())
    return model


def state_of(model: Loaded) -> str:
    return model.state


def test_it_is_ready_once_every_shape_of_few_is_warmed_up() -> None:
    runtime = RecordingRuntime()
    model = warmed_up(runtime)
    assert model.state == "ready"
    assert [shape for shape, _ in runtime.warmed_up] == list(model.warm_shapes) == list(FEW.all)
    assert FEW.all == ((EDGE, EDGE), (EDGE, OTHER_EDGE), (OTHER_EDGE, EDGE))


def test_of_very_many_shapes_the_largest_square_is_warmed_up() -> None:
    runtime = RecordingRuntime()
    model = warmed_up(runtime, shapes=TileShapes(OTHER_EDGE**2 - 1))
    assert model.warm_shapes == ((EDGE, EDGE),)
    assert runtime.warmed_up == [((EDGE, EDGE), 1)]


def test_a_gpu_is_warmed_up_with_every_batch_that_it_may_be_given() -> None:
    runtime = RecordingRuntime("cuda")
    warmed_up(runtime, shapes=square(EDGE))
    assert runtime.warmed_up == [((EDGE, EDGE), batch) for batch in (1, 2, 3, 4)]


def test_every_device_is_warmed_up() -> None:
    runtimes = RecordingRuntime(), RecordingRuntime()
    warmed_up(*runtimes)
    assert runtimes[0].warmed_up == runtimes[1].warmed_up != []


@pytest.mark.parametrize(
    ("devices", "named"),
    [(("cpu",), "cpu"), (("cuda:1",), "cuda:1"), (("cuda:0", "cuda:2"), "cuda:0,2")],
)
def test_its_device_is_all_that_share_its_tiles(devices: tuple[str, ...], named: str) -> None:
    assert Loaded([RecordingRuntime(device=each) for each in devices], FEW).device == named


@pytest.mark.parametrize("error", [InferenceFailed("no memory"), MemoryError()])
def test_a_model_that_cannot_warm_up_has_failed(error: Exception) -> None:
    runtime = RecordingRuntime()

    def fail() -> None:
        raise error

    runtime.before_warm_up = fail
    assert warmed_up(runtime).state == "failed"


def test_it_stops_without_warming_up_what_is_left() -> None:
    runtime, stopping = RecordingRuntime(), threading.Event()
    runtime.before_warm_up = stopping.set
    model = Loaded([runtime], FEW)
    model.warm_up(stopping)
    assert runtime.warmed_up == [((EDGE, EDGE), 1)]
    assert model.state == "warming-up"


def test_its_speed_is_that_of_its_turns() -> None:
    model = Loaded([RecordingRuntime()], FEW)
    model.note_turn(1000, 2.0)
    assert model.work_a_second == 500
    for _ in range(100):
        model.note_turn(1000, 1.0)
    assert model.work_a_second == pytest.approx(1000)


def test_a_model_that_fails_on_several_images_in_a_row_has_failed() -> None:
    model = warmed_up(RecordingRuntime())
    for _ in range(MOST_FAILURES - 1):
        model.note_failure()
    assert model.state == "ready"
    model.note_failure()
    assert state_of(model) == "failed"


def test_a_turn_that_goes_well_makes_up_for_failures() -> None:
    model = warmed_up(RecordingRuntime())
    for _ in range(10 * MOST_FAILURES):
        model.note_failure()
        model.note_turn(1, 1.0)
    assert model.state == "ready"


def test_where_memory_runs_out_half_as_many_tiles_are_run_together() -> None:
    model = Loaded([RecordingRuntime("cuda")], FEW)
    shape = (EDGE, EDGE)
    assert model.most_tiles(shape) == TILES_A_RUN["cuda"]
    model.note_out_of_memory(shape, 4)
    assert model.most_tiles(shape) == 2
    model.note_out_of_memory(shape, 2)
    assert model.most_tiles(shape) == 1
    assert model.most_tiles((EDGE, OTHER_EDGE)) == TILES_A_RUN["cuda"]
    assert model.shapes == FEW


def test_where_one_tile_is_too_much_tiles_are_half_as_large() -> None:
    model = Loaded([RecordingRuntime()], TileShapes(4 * SMALLEST**2))
    model.note_out_of_memory((2 * SMALLEST, 2 * SMALLEST), 1)
    assert model.shapes == TileShapes(2 * SMALLEST**2)


def test_tiles_are_never_too_small_to_cover_an_image() -> None:
    free, fixed = TileShapes(SMALLEST**2 + 1), TileShapes(EDGE**2, (EDGE,))
    for shapes, shape in ((free, (SMALLEST, SMALLEST)), (fixed, (EDGE, EDGE))):
        model = Loaded([RecordingRuntime()], shapes)
        model.note_out_of_memory(shape, 1)
        assert model.shapes == shapes
