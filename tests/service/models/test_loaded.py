"""A model that is served: warmed up, and asked for less where it fails."""

import subprocess
import sys
import threading
from collections.abc import Callable
from math import exp, prod
from pathlib import Path

import pytest

from model.architecture import Architecture
from model.errors import InferenceFailed
from model.geometry import flops
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import DEFAULT_TILE_EDGE
from model.sessions import Provider
from service.models.loaded import (
    GOOD_TURNS,
    MOST_CUDA_TILES,
    MOST_FAILURES,
    REMEMBERED_S,
    TILES_AT_FIRST,
    TIMED_RUNS,
    Loaded,
    bytes_a_pixel,
)
from service.settings import PRETRAINED
from tests.conftest import ROOT, square
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
    assert list(dict.fromkeys(shape for shape, _ in runtime.warmed_up)) == list(FEW.all)
    assert model.warm_shapes == FEW.all
    assert FEW.all == ((EDGE, EDGE), (EDGE, OTHER_EDGE), (OTHER_EDGE, EDGE))


def test_of_very_many_shapes_the_smallest_square_is_warmed_up() -> None:
    runtime = RecordingRuntime()
    model = warmed_up(runtime, shapes=TileShapes(OTHER_EDGE**2 - 1))
    assert model.warm_shapes == ((SMALLEST, SMALLEST),)
    assert set(runtime.warmed_up) == {((SMALLEST, SMALLEST), 1)}
    assert model.work_a_second > 0


class Device:
    """A clock, and a GPU for which it runs: longer with each px beyond those that fill it."""

    def __init__(self, filling: int, memory: float = float("inf")) -> None:
        self.now = 0.0
        self.runtime = RecordingRuntime("cuda")
        self.runs = self.runtime.warmed_up
        warm_up = self.runtime.warm_up

        def run(tile_shape: tuple[int, int], batch: int = 1) -> None:
            pixels = batch * prod(tile_shape)
            if pixels > memory:
                raise InferenceFailed("no memory")
            is_first = (tile_shape, batch) not in self.runs
            warm_up(tile_shape, batch)
            self.now += max(pixels, filling) * (10 if is_first else 1)

        self.runtime.warm_up = run  # type: ignore[method-assign]  # a seam

    def warmed_up(self, shapes: TileShapes = FEW) -> Loaded:
        model = Loaded([self.runtime], shapes, clock=lambda: self.now)
        model.warm_up(threading.Event())
        return model


SMALL, LARGE = (EDGE, EDGE), (OTHER_EDGE, EDGE)


@pytest.mark.parametrize(
    ("filling", "tiles"),
    [
        (1, 1),
        (2 * EDGE**2, 2),
        (5 * EDGE**2, 8),
        (8 * EDGE**2, 8),
        (10**9, MOST_CUDA_TILES),
    ],
)
def test_a_gpu_runs_as_many_tiles_together_as_it_gains_by(filling: int, tiles: int) -> None:
    assert Device(filling).warmed_up(square(EDGE)).most_tiles(SMALL) == tiles


def test_of_larger_tiles_a_gpu_runs_fewer_together() -> None:
    """Four of the smallest fill it, and as many px do of every shape."""
    edges = tuple(MANIFEST.geometry.edge_at_most(factor * EDGE) for factor in (1, 2))
    model = Device(4 * EDGE**2).warmed_up(TileShapes(edges[1] ** 2, edges))
    assert [model.most_tiles(shape) for shape in model.warm_shapes] == [4, 2, 2, 1]


def test_where_memory_is_short_a_gpu_runs_no_more_tiles_together_than_fit() -> None:
    device = Device(10**9, memory=5 * EDGE**2)
    assert device.warmed_up(square(EDGE)).most_tiles(SMALL) == 4


@pytest.mark.parametrize("memory", range(3, 40, 2))
def test_where_memory_is_short_every_shape_has_the_tiles_that_fit(memory: int) -> None:
    edges = tuple(MANIFEST.geometry.edge_at_most(factor * EDGE // 2) for factor in (2, 3, 4))
    device = Device(10**9, memory=memory * edges[0] * edges[2])
    model = device.warmed_up(TileShapes(edges[2] ** 2, edges))
    assert model.state == "ready"
    for shape in model.warm_shapes:
        assert (shape, model.most_tiles(shape)) in device.runs


def test_a_gpu_without_memory_for_one_tile_has_failed() -> None:
    assert Device(1, memory=1).warmed_up().state == "failed"


def test_a_gpu_is_warmed_up_with_every_number_of_tiles_that_it_is_given() -> None:
    device = Device(5 * EDGE**2)
    model = device.warmed_up()
    given = {
        (shape, model.most_tiles(shape, waiting))
        for shape in FEW.all
        for waiting in range(1, 2 * MOST_CUDA_TILES)
    }
    assert given <= set(device.runs)
    assert {tiles for _, tiles in given} == {1, 2, 4, 8}


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
def test_its_speed_is_known_before_its_first_turn(provider: Provider) -> None:
    """And it is not that of a run which prepares something."""
    if provider == "cuda":
        model = Device(1).warmed_up(square(EDGE))
        assert model.work_a_second == flops(MANIFEST.architecture, SMALL) / EDGE**2
    else:
        model = Loaded([RecordingRuntime()], square(EDGE), clock=lasting(2.0, 2.0, 2.0))
        model.warm_up(threading.Event())
        assert model.work_a_second == flops(MANIFEST.architecture, SMALL) / 2


def lasting(*seconds: float) -> Callable[[], float]:
    """Give a clock by which timed runs take so long, one after the other; then it stands."""
    times = iter([time for each in seconds for time in (0.0, each)])
    return lambda: next(times, 0.0)


@pytest.mark.parametrize("slow", range(TIMED_RUNS))
def test_a_run_that_was_held_up_does_not_make_it_slow(slow: int) -> None:
    runs = [20.0 if index == slow else 2.0 for index in range(TIMED_RUNS)]
    model = Loaded([RecordingRuntime()], square(EDGE), clock=lasting(*runs))
    model.warm_up(threading.Event())
    assert model.work_a_second == flops(MANIFEST.architecture, SMALL) / 2
    assert not model.is_measured


def test_its_runs_are_timed_while_their_device_runs_nothing_else() -> None:
    running = [threading.Lock(), threading.Lock()]
    runtimes = [RecordingRuntime("cuda", f"cuda:{number}") for number in range(2)]
    held: list[tuple[bool, ...]] = []
    times = iter(range(100))

    def clock() -> float:
        held.append(tuple(lock.locked() for lock in running))
        return next(times)

    model = Loaded(runtimes, square(EDGE), running=running, clock=clock)
    model.warm_up(threading.Event())
    assert set(held) == {(True, False)}
    assert not any(lock.locked() for lock in running)


def known_to_run(work_a_second: float) -> Loaded:
    """Give a model whose warm-up has shown such a speed."""
    model = warmed_up(RecordingRuntime())
    model.work_a_second = work_a_second
    return model


@pytest.mark.parametrize("guess", [100.0, 10_000.0])
def test_its_turns_correct_what_its_warm_up_guessed(guess: float) -> None:
    model = known_to_run(guess)
    for _ in range(300):
        model.note_turn(1000, 1.0)
    left = (guess - 1000) * exp(-300 / REMEMBERED_S)
    assert model.work_a_second == pytest.approx(1000 + left)


@pytest.mark.parametrize("turns", [0, 100])
def test_a_turn_that_was_held_up_does_not_make_it_slow(turns: int) -> None:
    model = known_to_run(1000)
    for _ in range(turns):
        model.note_turn(1000, 1.0)
    model.note_turn(1000, 10.0)
    assert model.work_a_second > 500


def test_turns_that_take_little_of_the_time_hardly_change_its_speed() -> None:
    model = known_to_run(1000)
    for _ in range(100):
        model.note_turn(1000, 1.0)
    for _ in range(20):
        model.note_turn(10, 0.1)
    assert model.work_a_second > 900


@pytest.mark.parametrize(("turn_s", "trusted_s"), [(100.0, 60.0), (1.0, 60.0), (0.25, 15.0)])
def test_its_speed_is_trusted_for_a_while_after_a_turn(turn_s: float, trusted_s: float) -> None:
    """Sixty times as long as the turn took, and a minute at most."""
    device = Device(1)
    model = device.warmed_up()
    seen = [model.is_measured]
    model.note_turn(1000, turn_s)
    for seconds in (trusted_s - 0.5, 1.0):
        device.now += seconds
        seen.append(model.is_measured)
    assert seen == [False, True, False]


def test_a_short_turn_takes_no_trust_away() -> None:
    device = Device(1)
    model = device.warmed_up()
    for seconds in (1.0, 0.001):
        model.note_turn(1000, seconds)
    device.now += 59
    assert model.is_measured


def test_every_device_is_warmed_up() -> None:
    runtimes = RecordingRuntime(), RecordingRuntime()
    warmed_up(*runtimes)
    assert set(runtimes[0].warmed_up) == set(runtimes[1].warmed_up) != set()


def test_the_limit_of_its_tiles_is_half_of_the_smallest_that_failed() -> None:
    """Though more tiles of an older plan may fail."""
    model = Loaded([RecordingRuntime()], TileShapes(1000**2))
    limits = []
    for shape in ((1000, 1000), (1000, 1000), (500, 1000), (1000, 1000)):
        model.note_out_of_memory(shape, tiles=1)
        limits.append(model.shapes.largest_area)
    assert limits == [500_000, 500_000, 250_000, 250_000]


def test_of_shortages_that_overlap_the_fewest_tiles_a_run_count() -> None:
    model = Loaded([RecordingRuntime("cuda")], FEW)
    for tiles in (4, 2, 4):
        model.note_out_of_memory((EDGE, EDGE), tiles)
    assert model.most_tiles((EDGE, EDGE)) == 1


def run_well(model: Loaded, turns: int) -> None:
    for _ in range(turns):
        model.note_turn(1, 1.0)


def test_after_a_shortage_its_tiles_grow_again_up_to_what_they_were() -> None:
    model = Loaded([RecordingRuntime()], TileShapes(1000**2))
    for _ in range(2):
        model.note_out_of_memory((500, 1000), tiles=1)
    limits = []
    for turns in (GOOD_TURNS - 1, 1, GOOD_TURNS - 1, 1, GOOD_TURNS):
        run_well(model, turns)
        limits.append(model.shapes.largest_area)
    assert limits == [250_000, 500_000, 500_000, 1_000_000, 1_000_000]


def test_what_its_tiles_were_is_no_power_of_two_of_what_failed() -> None:
    model = Loaded([RecordingRuntime()], TileShapes(1000**2))
    model.note_out_of_memory((800, 1000), tiles=1)
    limits = []
    for _ in range(3):
        run_well(model, GOOD_TURNS)
        limits.append(model.shapes.largest_area)
    assert limits == [800_000, 1_000_000, 1_000_000]


def test_after_a_shortage_more_tiles_are_run_together_again_up_to_what_was_gained_by() -> None:
    model = Device(5 * EDGE**2).warmed_up(square(EDGE))
    model.note_out_of_memory(SMALL, 4)
    found = [model.most_tiles(SMALL)]
    for _ in range(3):
        run_well(model, GOOD_TURNS)
        found.append(model.most_tiles(SMALL))
    assert found == [2, 4, 8, 8]
    assert not model._fewer  # or the number would double for ever


def test_good_turns_are_counted_from_the_last_shortage() -> None:
    model = Loaded([RecordingRuntime()], TileShapes(1000**2))
    for _ in range(3):
        model.note_out_of_memory((1000, 1000), tiles=1)
        run_well(model, GOOD_TURNS - 1)
    assert model.shapes.largest_area == 500_000


@pytest.mark.parametrize("is_open", [True, False])
def test_a_retired_device_is_not_warmed_up(is_open: bool) -> None:
    lost, sound = RecordingRuntime("cuda", "cuda:0"), RecordingRuntime("cuda", "cuda:1")
    model = Loaded([lost if is_open else None, sound], FEW, {0})
    model.warm_up(threading.Event())
    assert (state_of(model), model.device) == ("ready", "cuda:1")
    assert sound.warmed_up
    assert not lost.warmed_up


@pytest.mark.parametrize(
    ("devices", "named"),
    [(("cpu",), "cpu"), (("cuda:1",), "cuda:1"), (("cuda:0", "cuda:2"), "cuda:0,2")],
)
def test_its_device_is_all_that_share_its_tiles(devices: tuple[str, ...], named: str) -> None:
    assert Loaded([RecordingRuntime(device=each) for each in devices], FEW).device == named


def test_where_no_device_runs_it_any_more_its_kind_of_device_is_named() -> None:
    assert Loaded([RecordingRuntime("cuda", "cuda:1")], FEW, {0}).device == "cuda"


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
    assert set(runtime.warmed_up) == {((EDGE, EDGE), 1)}
    assert model.state == "warming-up"


def test_its_speed_is_that_of_its_turns() -> None:
    model = Loaded([RecordingRuntime()], FEW)
    model.note_turn(1000, 2.0)
    assert model.work_a_second == 500
    for _ in range(100):
        model.note_turn(1000, 1.0)
    assert model.work_a_second == pytest.approx(1000 - 500 * exp(-100 / REMEMBERED_S))


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


def refusing(runtime: RecordingRuntime) -> RecordingRuntime:
    """Let a runtime not warm up."""

    def refuse() -> None:
        raise InferenceFailed("The device is lost.")

    runtime.before_warm_up = refuse
    return runtime


@pytest.mark.parametrize("lost", [0, 1])
def test_a_device_on_which_it_does_not_warm_up_does_not_run_it(lost: int) -> None:
    runtimes = [RecordingRuntime("cuda", f"cuda:{number}") for number in range(2)]
    refusing(runtimes[lost])
    model = warmed_up(*runtimes)
    assert (state_of(model), model.device) == ("ready", f"cuda:{1 - lost}")
    with pytest.raises(InferenceFailed, match=f"Device {lost} does not run {MANIFEST.name}"):
        model.runtime_on(lost)


def test_a_device_that_does_not_run_it_leaves_its_tiles_to_others_as_long_as_there_are() -> None:
    retired = set[int]()
    runtimes = [RecordingRuntime("cuda", f"cuda:{number}") for number in range(2)]
    model = Loaded([refusing(runtimes[0]), runtimes[1]], FEW, retired)
    model.warm_up(threading.Event())
    assert [model.runs_on(device) for device in (0, 1)] == [False, True]
    retired.add(1)
    assert model.runs_on(0)  # to say that it does not, so that nobody waits


def test_a_model_that_warms_up_on_no_device_has_failed_until_a_turn_goes_well() -> None:
    model = warmed_up(refusing(RecordingRuntime("cuda")), refusing(RecordingRuntime("cuda")))
    assert state_of(model) == "failed"
    model.note_turn(1, 1.0)
    assert state_of(model) == "ready"


def test_a_model_that_has_failed_runs_again_with_the_next_turn_that_goes_well() -> None:
    model = warmed_up(RecordingRuntime())
    for _ in range(MOST_FAILURES):
        model.note_failure()
    model.note_turn(1, 1.0)
    assert state_of(model) == "ready"


def test_where_memory_runs_out_half_as_many_tiles_are_run_together() -> None:
    model = Loaded([RecordingRuntime("cuda")], FEW)
    shape = (EDGE, EDGE)
    assert model.most_tiles(shape) == TILES_AT_FIRST["cuda"]
    model.note_out_of_memory(shape, 4)
    assert model.most_tiles(shape) == 2
    model.note_out_of_memory(shape, 2)
    assert model.most_tiles(shape) == 1
    assert model.most_tiles((EDGE, OTHER_EDGE)) == TILES_AT_FIRST["cuda"]
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


def test_its_memory_grows_with_its_tiles_and_their_number() -> None:
    cpu, large = (
        Loaded([RecordingRuntime()], square(edge)).memory_bytes for edge in (EDGE, 2 * EDGE)
    )
    gpu = Loaded([RecordingRuntime("cuda")], square(EDGE)).memory_bytes
    assert (large / cpu, gpu / cpu) == (4, TILES_AT_FIRST["cuda"])


@pytest.mark.parametrize(("classes", "maps"), [(2, 160), (32, 160), (100, 160 + 100 - 32)])
def test_its_memory_grows_with_its_classes_once_they_are_more_than_its_channels(
    classes: int, maps: int
) -> None:
    """At 892 px, 100 classes took 873 bytes a pixel beside the parameters, 2 took 501."""
    assert bytes_a_pixel(Architecture(base_channels=32, num_classes=classes)) == 4 * maps


def test_its_memory_grows_with_what_its_tiles_have_beyond_colour() -> None:
    grey, colour, many = (
        bytes_a_pixel(Architecture(in_channels=channels, base_channels=32))
        for channels in (1, 3, 10)
    )
    assert (colour - grey, many - grey) == (0, 4 * 7)


GROWTH = """
from pathlib import Path
from model.runtime import Runtime

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024

before = resident()
runtime = Runtime(Path({path!r}), "cpu")
for _ in range(2):
    runtime.warm_up(({edge}, {edge}))
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_its_memory_is_about_what_a_process_grows_by() -> None:
    path, edge = str(PRETRAINED / "em-membranes.onnx"), DEFAULT_TILE_EDGE
    ended = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", GROWTH.format(path=path, edge=edge)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    estimate = Loaded([Runtime(Path(path), "cpu")], square(edge)).memory_bytes
    assert 0.7 < estimate / int(ended.stdout) < 1.4
