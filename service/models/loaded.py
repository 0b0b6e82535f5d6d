"""One artefact, opened on every device, and what has been found out about it there."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from model.architecture import Architecture
from model.artefact import Artefact, Manifest
from model.errors import InferenceFailed
from model.geometry import flops
from model.planner import TileShapes
from model.runtime import Runtime
from model.sessions import Provider
from model.sessions.cuda import MOST_TILES as TENSORRT_TILES
from service.schemas import LoadedState

CUDA_TILES_AT_FIRST, MOST_CUDA_TILES = 4, 16
TILES_AT_FIRST: dict[Provider, int] = {
    "cpu": 1,
    "openvino": 1,
    "cuda": CUDA_TILES_AT_FIRST,
    "tensorrt": TENSORRT_TILES,
}
"""Tiles a run before a warm-up. A CPU gains nothing from a batch; what a GPU gains, its warm-up
finds out."""
TILES_TRIED = TILES_AT_FIRST | {"cuda": MOST_CUDA_TILES}
"""Tiles a run that a warm-up tries at most."""
GAIN = 1.05
"""What twice as many tiles a run must add to the speed of a device, or it is not worth its
memory, nor the time that other images wait."""
MOST_FAILURES = 3
"""Images in a row that a model fails on before it counts as broken; of a device, turns."""
REMEMBERED_S = 30.0
"""Time of a model's turns after which what was known of its speed before counts 1/e as much."""
TRUSTED_S = 60.0
"""How long a speed is trusted after a turn that took a second or more; after a shorter one, so many
times as long as it took. Or a wrong one that keeps every image out, or all but small ones, would
never be corrected."""
TIMED_RUNS = 3
"""Of which the fastest counts before the first turn: what else takes the processor meanwhile, or a
container's limit, makes one run several times slower, and none faster."""
GOOD_TURNS = 100
"""In a row, after which a model that ran out of memory is asked for twice as much again."""
MAPS = 5
"""Maps as large as the tile, of `base_channels` float32, that a run of it leaves in a session's
memory: measured with ONNX Runtime 1.32 on a CPU, tiles of 700 and 1084 px, 32 base channels."""
BYTES_A_PARAMETER = 8
"""As measured there: float32, and once more in the order in which convolutions read them."""
STORED_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}

log = logging.getLogger(__name__)

TileShape = tuple[int, int]


class Loaded:
    """A model that is served."""

    def __init__(
        self,
        runtimes: Sequence[Runtime | None],
        shapes: TileShapes,
        retired: Set[int] = frozenset(),
        running: Sequence[AbstractContextManager[object]] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Take an artefact that was opened.

        Args:
            runtimes: One for each device; None where the device is retired already.
            shapes: What its tiles may be.
            retired: The numbers of devices that take no more turns; others may add to them.
            running: What is held while each device runs tiles, so that runs are timed between the
                turns of other models; none is where there are no others.
            clock: Times the warm-up, and how long its speed is trusted, in s.
        """
        self._runtimes = tuple(runtimes)
        self._one = next(runtime for runtime in runtimes if runtime)
        self.shapes = shapes
        """What its tiles may be now: after they ran out of memory, less than at first."""
        self._shapes_at_first = shapes
        self._retired = retired
        self._running = running or [nullcontext()] * len(self._runtimes)
        self._clock = clock
        self.state: LoadedState = "warming-up"
        self.work_a_second = 0.0
        """Floating-point operations in a second: in those runs of its warm-up that were timed, and
        ever more in a device's turns; 0 before these."""
        self._trusted_until = -math.inf
        """On its clock, in s."""
        self.failure = ""
        """Why it did not warm up."""
        self._most: dict[TileShape, int] = {}
        """Tiles a run, as its warm-up found."""
        self._fewer: dict[TileShape, int] = {}
        """Tiles a run where more ran out of memory."""
        self._failures = 0
        self._good_turns = 0
        """Since it last ran out of memory."""
        self._notes = threading.Lock()
        """Held while something is learnt: several devices may run it at a time."""

    @property
    def runtimes(self) -> list[Runtime]:
        """Those of the devices that take turns."""
        numbered = enumerate(self._runtimes)
        return [each for number, each in numbered if each and number not in self._retired]

    def runs_on(self, device: int) -> bool:
        """Whether a device takes its turns: where none does any more, each says so."""
        return self._runtimes[device] is not None or not self.runtimes

    def runtime_on(self, device: int) -> Runtime:
        """Give that of a device.

        Raises:
            InferenceFailed: if it does not run the model.
        """
        runtime = self._runtimes[device]
        if runtime is None:
            raise InferenceFailed(f"Device {device} does not run {self.manifest.name}.")
        return runtime

    @property
    def manifest(self) -> Manifest:
        """What the artefact says about itself."""
        return self._one.manifest

    @property
    def artefact(self) -> Artefact:
        """The file."""
        return self._one.artefact

    @property
    def provider(self) -> Provider:
        """What runs the model, as its session says."""
        return self._one.provider

    @property
    def device(self) -> str:
        """The devices that run the model, as their sessions say: `cpu`, or as in `cuda:0,2`."""
        if not self.runtimes:
            return self._one.device.partition(":")[0]
        return name_together([each.device for each in self.runtimes])

    @property
    def precision(self) -> str:
        """What the model is computed in, as its session says."""
        return self._one.precision

    @property
    def is_measured(self) -> bool:
        """Whether turns have lately shown how fast it is."""
        return self._clock() < self._trusted_until

    @property
    def warm_shapes(self) -> tuple[TileShape, ...]:
        """What is warmed up, height and width in px: all shapes, or the smallest of very many.

        Where shapes are free nothing is prepared for any: one run shows that the model runs, and
        how fast.
        """
        edge = self.manifest.geometry.smallest_tiling_edge
        return self.shapes.all or ((edge, edge),)

    @property
    def memory_bytes(self) -> int:
        """What it takes on each device once it is warm: an estimate, most of it for the tiles."""
        batches = [math.prod(shape) * self.most_tiles(shape) for shape in tuple(self._most)]
        pixels = max(batches, default=self.shapes.largest_area * TILES_AT_FIRST[self.provider])
        return session_bytes(self.manifest, pixels)

    def warm_up(self, stopping: threading.Event) -> None:
        """Run every shape that can be prepared, on every device; then the model is ready.

        A device on which that fails does not run it, where there is another.
        """
        failed: dict[int, Exception] = {}
        for device, runtime in enumerate(self._runtimes):
            if runtime is None or device in self._retired:
                continue
            try:
                self._prepare(device, stopping)
            except Exception as exc:  # whatever it is: what waits for the model would wait for ever
                log.exception("%s did not warm up on %s", self.manifest.name, runtime.device)
                failed[device] = exc
        if stopping.is_set():
            return
        if len(failed) == len(self.runtimes):
            self.failure = "; ".join(str(exc) or type(exc).__name__ for exc in failed.values())
            self.state = "failed"
            return
        numbered = enumerate(self._runtimes)
        self._runtimes = tuple(None if device in failed else each for device, each in numbered)
        self.state = "ready"

    def _prepare(self, device: int, stopping: threading.Event) -> None:
        if TILES_AT_FIRST[self.provider] > 1 and not self._most:
            self._find_batches(device)
        for shape in self.warm_shapes:
            for tiles in _powers_of_two(self.most_tiles(shape)):
                if stopping.is_set():
                    return
                if not self._warm(device, shape, tiles):
                    break

    def _warm(self, device: int, shape: TileShape, tiles: int) -> bool:
        """Run a batch for the first time; where it fails, ask for half as much from now on."""
        try:
            self.runtime_on(device).warm_up(shape, tiles)
            if not self.work_a_second:
                self.work_a_second = self._speed(device, shape, tiles)
        except InferenceFailed:
            if tiles == 1:
                raise
            self._most[shape] = tiles // 2
            return False
        return True

    def most_tiles(self, shape: TileShape, waiting: int | None = None) -> int:
        """Give how many tiles of a shape are run together, of those that wait if it is known.

        It is a power of two: each number of tiles has to be warmed up.
        """
        found = self._found(shape)
        most = min(found, self._fewer.get(shape, found))
        return _powers_of_two(most if waiting is None else min(most, waiting))[-1]

    def _found(self, shape: TileShape) -> int:
        """Give the tiles a run that its warm-up found, whatever became of them since."""
        return self._most.get(shape, TILES_AT_FIRST[self.provider])

    def _find_batches(self, device: int) -> None:
        """Find how many tiles of each shape are run together, and how fast that is.

        What fills a device is so many pixels, whatever their shape: so it is enough to try the
        smallest shape and, for what any shape gains, the largest.
        """
        shapes = self.warm_shapes
        filling = self._gainful(device, shapes[0]) * math.prod(shapes[0])
        least = self._gainful(device, shapes[-1])
        for shape in shapes:
            tiles = max(filling // math.prod(shape), 1)
            self._most[shape] = max(least, _powers_of_two(tiles)[-1])

    def _gainful(self, device: int, shape: TileShape) -> int:
        """Give the number of tiles of which twice as many are no longer worth it."""
        best, most = 0.0, TILES_TRIED[self.provider]
        for tiles in _powers_of_two(most):
            try:
                self.runtime_on(device).warm_up(shape, tiles)
                speed = self._speed(device, shape, tiles)
            except InferenceFailed:
                if tiles == 1:
                    raise
                return tiles // 2
            if speed < GAIN * best:
                return tiles // 2
            self.work_a_second = best = speed
        return most

    def _speed(self, device: int, shape: TileShape, tiles: int) -> float:
        """Give the floating-point operations in a second of empty tiles that ran before.

        The first run of a shape is not like others.
        """
        seconds = min(self._time(device, shape, tiles) for _ in range(TIMED_RUNS))
        return tiles * flops(self.manifest.architecture, shape) / seconds

    def _time(self, device: int, shape: TileShape, tiles: int) -> float:
        """Run empty tiles between the turns of a device; give the time, in s."""
        with self._running[device]:
            began = self._clock()
            self.runtime_on(device).warm_up(shape, tiles)
            return max(self._clock() - began, 1e-9)

    def note_turn(self, work: int, seconds: float) -> None:
        """Learn from a turn that went well.

        The speed is the work by the time, over all turns, of which each moment counts less by the
        time of those since; the warm-up counts as all that was before the first. So short turns
        hardly count, and a single one by no more than the time that it took.

        Args:
            work: Floating-point operations of its tiles.
            seconds: How long they took.
        """
        with self._notes:
            self._failures = 0
            if self.state == "failed":
                log.info("%s runs again", self.manifest.name)
                self.state = "ready"
            speed = work / seconds
            kept = math.exp(-seconds / REMEMBERED_S) if self.work_a_second else 0.0
            self.work_a_second = kept * self.work_a_second + (1 - kept) * speed
            trusted_s = TRUSTED_S * min(seconds, 1.0)
            self._trusted_until = max(self._trusted_until, self._clock() + trusted_s)
            self._good_turns += 1
            if self._good_turns % GOOD_TURNS == 0:
                self._ask_for_more()

    def note_failure(self) -> None:
        """Learn from an image that could not be run; after several in a row nothing is trusted."""
        with self._notes:
            self._failures += 1
            if self._failures >= MOST_FAILURES and self.state == "ready":
                log.error("%s failed on %d images in a row", self.manifest.name, self._failures)
                self.state = "failed"

    def note_out_of_memory(self, shape: TileShape, tiles: int) -> None:
        """Ask for half of what failed: fewer tiles at once, or smaller ones where it was one.

        After `GOOD_TURNS` without, it is asked for twice as much again, up to what it began with.

        Args:
            shape: Input height and width of what failed, in px.
            tiles: How many were run together.
        """
        with self._notes:
            self._good_turns = 0
            if tiles > 1:
                self._fewer[shape] = min(self.most_tiles(shape), tiles // 2)
            else:
                self._shrink(math.prod(shape) // 2)

    def _shrink(self, area: int) -> None:
        """Let tiles have so many px at most, if they can still cover every image."""
        if area >= self.shapes.largest_area:  # asked for before, by a tile of the same turn
            return
        fitting = tuple(edge for edge in self.shapes.edges if edge**2 <= area)
        smallest = self.manifest.geometry.smallest_tiling_edge**2
        if area >= smallest and (fitting or not self.shapes.edges):
            self._limit(area)

    def _ask_for_more(self) -> None:
        """Let tiles be twice as large and twice as many a run, up to what they were at first."""
        area = min(2 * self.shapes.largest_area, self._shapes_at_first.largest_area)
        if area > self.shapes.largest_area:
            self._limit(area)
        fewer = ((shape, 2 * tiles) for shape, tiles in self._fewer.items())
        self._fewer = {shape: tiles for shape, tiles in fewer if tiles < self._found(shape)}

    def _limit(self, area: int) -> None:
        self.shapes = replace(self.shapes, largest_area=area)
        log.warning("%s: from now on tiles have at most %d px", self.manifest.name, area)


def name_together(devices: Iterable[str]) -> str:
    """Name devices of one kind together: `cpu`, or as in `cuda:0,2`."""
    kinds, _, numbers = zip(*(device.partition(":") for device in devices), strict=True)
    return f"{kinds[0]}:{','.join(numbers)}" if any(numbers) else str(kinds[0])


def session_bytes(manifest: Manifest, pixels: int) -> int:
    """Estimate the memory of a session that runs so many pixels at a time."""
    maps = bytes_a_pixel(manifest.architecture) * pixels
    return maps + BYTES_A_PARAMETER * manifest.graph_bytes // STORED_BYTES[manifest.precision]


def bytes_a_pixel(architecture: Architecture) -> int:
    """Estimate the memory of a session for each pixel of the largest tile that it ran.

    Logits are laid where an earlier map was, so that only classes beyond its channels count.
    Measured as `MAPS` was, at 572 to 1084 px with 2, 20, 50 and 100 classes. What a tile has
    beyond the channels of colour is counted in full.
    """
    logits = max(architecture.num_classes - architecture.base_channels, 0)
    pixels = max(architecture.in_channels - 3, 0)
    return 4 * (MAPS * architecture.base_channels + logits + pixels)


def _powers_of_two(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length())]
