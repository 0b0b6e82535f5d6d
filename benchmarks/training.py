"""What the training loop costs beyond its network: `python -m benchmarks.training`.

Contestants train one network on tiles of one size, each in a process of its own, in turns:

- `bare`: the network, its loss and its optimiser in a plain torch loop; tiles made beforehand;
- `ours`: the loop of `training.fit`: elastic tiles drawn while the network runs, averaging, log;
- `monai`: MONAI's `Rand2DElasticd`, rotation, flips and noise behind its loader, and the same step;
- `our tiles`, `monai tiles`: the tiles alone, drawn by one thread;
- `large`: ours, on a set ten times the memory that is left for it: the process enters a memory
  control group, writes the set, drops it from the page cache, and is bounded, after the warm-up, to
  what it then needs and `LARGE_ROOM`. It counts only if more than that was read from disk.

What cannot be measured is a row that says why.
"""

import argparse
import json
import math
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.kept import NOT_KEPT, keep
from benchmarks.machine import commit, describe
from benchmarks.memory_group import Watch, leave_on_disk, memory_group
from benchmarks.row import Row
from benchmarks.row import table as rows_table
from benchmarks.subject import ROOT
from model.architecture import Architecture
from model.geometry import Geometry
from model.network import UNet
from training.data.census import take_census
from training.data.dataset import AnnotatedImage
from training.plan import Plan, make_plan
from training.run.arithmetic import arithmetic, laid_out, layout
from training.run.identity import Identity
from training.run.loop import Loop
from training.run.loss import weighted_cross_entropy
from training.run.optimisation import build_optimiser
from training.run.progress import Validation
from training.settings import FitSettings
from training.synthetic import generate
from training.tiles.augmentation import Sampler
from training.tiles.store import Store, prepare

RESULT = Path(__file__).parent / "results" / "training.json"
EDGE = 572
ARCHITECTURE = Architecture(in_channels=1, num_classes=2, depth=4, base_channels=32)
WARM_UP, STEPS, ROUNDS = 4, 24, 3
IMAGES, IMAGE_EDGE = 2, 1024
LARGE_ROOM = 1 << 27
"""Memory for the set of the contestant `large`, in bytes."""
LARGE_FACTOR = 10
LARGE_STEPS = 48
BYTES_A_PIXEL = 7
"""Of a store: an 8-bit grey value, an id and a weight."""
GEOMETRY = Geometry(ARCHITECTURE.depth)
Found = dict[str, Any]
"""What a contestant measured; or `failed`, the reason why it did not."""
BARS = {
    "ours / bare": 0.95,
    "ours / monai": 1.5,
    "our tiles / monai tiles": 1.5,
    "large / ours": 0.9,
}


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write the result; or be one contestant.

    Returns:
        3 if the result is that of no commit, else 1 if a bar was missed, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args(words)
    if arguments.contestant:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(CONTESTANTS[arguments.contestant](Path(folder))))
        return 0
    measured = commit()
    found: dict[str, list[Found]] = {name: [] for name in CONTESTANTS}
    for _ in range(arguments.rounds):
        for name in found:
            found[name].append(start(name))
    ratios = [ratio(name, bar, found) for name, bar in BARS.items()]
    result = record(found, ratios, arguments.rounds)
    print(table(result["contestants"], ratios))
    if not keep(RESULT, result, measured):
        return NOT_KEPT
    return int(any(row.verdict != "met" for row in ratios))


def start(name: str) -> Found:
    """Run one contestant in a process of its own; one that fails says why, as `failed`."""
    command = [sys.executable, "-m", "benchmarks.training", "--contestant", name]
    done = subprocess.run(  # noqa: S603 (our own module)
        command, cwd=ROOT, check=False, capture_output=True, text=True
    )
    if done.returncode:
        row = {"failed": reason(done.returncode, done.stderr)}
        print(f"{name:>12}  not measured: {row['failed']}")
        return row
    found: Found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{name:>12}  {found['steps_per_second']:.3f} steps/s  {found['peak_bytes'] / 1e9:.2f} GB"
    )
    return found


def reason(code: int, stderr: str) -> str:
    """Say why a process failed: by a signal, or by the last line that it wrote."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return (stderr.strip().splitlines() or [f"ended with {code}"])[-1]


def bare(folder: Path) -> Found:
    """The step alone, on tiles that lie in memory."""
    sampler = Sampler(make_store(folder), plan(folder), GEOMETRY, 0, torch.device("cpu"))
    drawn = [sampler.draw(step, [0]) for step in range(WARM_UP + STEPS)]
    step = make_step(folder)
    return timed(step(tiles.pixels, tiles.labels, tiles.weights) for tiles in drawn)


def ours(folder: Path) -> Found:
    """The loop of `training.fit`, without validations."""
    return run_loop(folder, make_store(folder))


def large(folder: Path) -> Found:
    """The same loop, on more than the process may keep in memory.

    Raises:
        OSError: if its memory cannot be bounded here.
        NotMeasured: if less was read from disk than fits in memory.
    """
    with memory_group() as group:
        store = make_store(folder, LARGE_FACTOR * LARGE_ROOM // (BYTES_A_PIXEL * IMAGE_EDGE**2) + 1)
        arrays = folder / "store" / "arrays"
        leave_on_disk(arrays)
        with Watch(group, WARM_UP, LARGE_ROOM) as watch:
            found = run_loop(folder, store, LARGE_STEPS, watch)
        return found | watch.found() | {"set_bytes": arrays.stat().st_size}


def our_tiles(folder: Path) -> Found:
    """Tiles of ours alone, drawn by one thread."""
    sampler = Sampler(make_store(folder), plan(folder), GEOMETRY, 0, torch.device("cpu"))
    torch.set_num_threads(1)
    return timed(sampler.draw(step, [0]) for step in range(WARM_UP + STEPS))


def monai_tiles(folder: Path) -> Found:
    """MONAI's tiles alone, drawn by one thread."""
    loader = monai_loader(folder, workers=0)
    torch.set_num_threads(1)
    return timed(batch for _, batch in zip(range(WARM_UP + STEPS), loader, strict=False))


def monai(folder: Path) -> Found:
    """MONAI's elastic deformation and loader, and the same step."""
    loader, step = monai_loader(folder, workers=2), make_step(folder)
    halo = GEOMETRY.halo
    inner = np.s_[:, :, halo : EDGE - halo, halo : EDGE - halo]

    def steps() -> Iterator[None]:
        for _, batch in zip(range(WARM_UP + STEPS), loader, strict=False):
            target = batch["target"].as_tensor()[inner]
            yield step(batch["image"].as_tensor(), target[:, 0].long(), target[:, 1])

    return timed(steps())


def monai_loader(folder: Path, workers: int) -> Any:
    """Give MONAI's loader of tiles that vary as ours do."""
    from monai.data import CacheDataset, DataLoader  # the peer's own import takes seconds
    from monai.transforms import (
        Compose,
        EnsureChannelFirstd,
        Rand2DElasticd,
        RandAxisFlipd,
        RandGaussianNoised,
        RandShiftIntensityd,
        RandSpatialCropd,
        SpatialPadd,
    )

    keys, modes = ("image", "target"), ("bilinear", "nearest")
    change = Compose(
        [
            EnsureChannelFirstd(keys, channel_dim=0),
            SpatialPadd(keys, (EDGE, EDGE), mode="reflect"),
            RandSpatialCropd(keys, (EDGE, EDGE), random_size=False),
            Rand2DElasticd(
                keys,
                spacing=(EDGE // 2, EDGE // 2),
                magnitude_range=(5, 15),
                prob=1.0,
                rotate_range=np.pi,
                mode=modes,
                padding_mode="reflection",
            ),
            RandAxisFlipd(keys, prob=0.5),
            RandShiftIntensityd("image", 0.15, prob=1.0),
            RandGaussianNoised("image", prob=1.0, std=0.1),
        ]
    )
    store = make_store(folder)
    entries = [
        {
            "image": image.scale.apply(image.pixels),
            "target": np.stack([image.ids > 0, 1 + image.borders]).astype(np.float32),
        }
        for image in store.images
    ]
    repeated = entries * -(-(WARM_UP + STEPS) // len(entries))
    dataset = CacheDataset(repeated, change, progress=False)
    return DataLoader(dataset, num_workers=workers, batch_size=1)


CONTESTANTS: dict[str, Callable[[Path], Found]] = {
    "bare": bare,
    "ours": ours,
    "monai": monai,
    "our tiles": our_tiles,
    "monai tiles": monai_tiles,
    "large": large,
}


def make_step(folder: Path) -> Callable[[Tensor, Tensor, Tensor], None]:
    """Make the plain step that peers take: forward, loss, backward, optimiser."""
    device, compute = torch.device("cpu"), plan(folder).compute
    network = laid_out(UNet(ARCHITECTURE), device, compute)
    order = layout(device, compute)
    optimiser = build_optimiser(network, settings(folder))
    for group in optimiser.param_groups:
        group["lr"] = 1e-4

    def step(pixels: Tensor, labels: Tensor, weights: Tensor) -> None:
        with arithmetic(device, compute):
            logits = network(pixels.contiguous(memory_format=order))
        loss = weighted_cross_entropy(logits, labels, weights)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    return step


def timed(steps: Iterator[object]) -> Found:
    """Take steps, and time those after the warm-up."""
    for _ in range(WARM_UP):
        next(steps)
    began = time.perf_counter()
    count = sum(1 for _ in steps)
    return row(count / (time.perf_counter() - began))


def run_loop(
    folder: Path, store: Store, steps: int = STEPS, watch: Callable[[int], None] = lambda _: None
) -> Found:
    """Run our loop and take its rate over the steps after the warm-up.

    Args:
        folder: Of the run.
        store: Of the tiles.
        steps: After the warm-up.
        watch: Called with the number of each step when it is done, from 0.
    """
    asked = settings(folder, steps)
    device, planned = torch.device("cpu"), plan(folder, steps)
    sampler = Sampler(store, planned, GEOMETRY, asked.seed, device)
    network = laid_out(UNet(ARCHITECTURE), device, planned.compute)
    loop = Loop(network, sampler, _no_validation, Identity("{}", {}, {}, ""), asked)
    marks: list[float] = []
    original = loop.descent.step

    def step(step: int, tiles: Any) -> float:
        loss = original(step, tiles)
        watch(step)
        marks.append(time.perf_counter())
        return loss

    loop.descent.step = step  # type: ignore[method-assign]  # a clock at every step
    loop.run()
    return row(steps / (marks[-1] - marks[WARM_UP - 1]))


def _no_validation(_: nn.Module) -> Validation:
    return Validation("none", 0.0, None)


def row(rate: float) -> Found:
    """Give a contestant's rate, and the most memory that its process had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"steps_per_second": rate, "peak_bytes": peak}


def settings(folder: Path, steps: int = STEPS) -> FitSettings:
    """Ask for the tile that is measured, and for the warm-up and some steps."""
    return FitSettings(
        out=folder,
        steps=WARM_UP + steps,
        tile_edge=EDGE,
        validate_every=10**6,
        batch=1,
        device="cpu",
    )


def plan(folder: Path, steps: int = STEPS) -> Plan:
    """Plan a run on the images that are measured."""
    return make_plan(take_census(make_images(1)), settings(folder, steps), 1 << 40)


def make_images(count: int = IMAGES) -> list[AnnotatedImage]:
    """Make images of blobs; all share one pattern, since only the pixels' number matters here."""
    pixels, labels = generate("blobs", (IMAGE_EDGE // 2,) * 2, 0)
    largest = int(labels.max())
    quarters = [
        np.where(labels, labels.astype(np.int32) + largest * quarter, 0) for quarter in range(4)
    ]
    objects = np.block([quarters[:2], quarters[2:]]).astype(np.int32)
    tiled, semantic = np.tile(pixels, (1, 2, 2)), (objects > 0).astype(np.uint8)
    return [AnnotatedImage(f"blobs-{number}", tiled, semantic, objects) for number in range(count)]


def make_store(folder: Path, count: int = IMAGES) -> Store:
    """Prepare images as `training.fit` does."""
    return prepare(folder / "store", make_images(count), ARCHITECTURE, plan(folder))


def ratio(name: str, bar: float, found: dict[str, list[Found]]) -> Row:
    """Compare two contestants: the median of the ratios within each round."""
    first, second = (found[one] for one in name.split(" / "))
    failed = [one["failed"] for one in (*first, *second) if "failed" in one]
    if failed:
        return Row(name, at_least=bar, says=f"not measured: {failed[0]}")
    each = [
        one["steps_per_second"] / other["steps_per_second"]
        for one, other in zip(first, second, strict=True)
    ]
    return Row(name, statistics.median(each), at_least=bar, numbers={"rounds": each})


def summary(each: list[Found]) -> Found:
    """Give the median of every number of a contestant; or why there is none."""
    failed = [one for one in each if "failed" in one]
    return (
        failed[0] if failed else {key: statistics.median(o[key] for o in each) for key in each[0]}
    )


def record(found: dict[str, list[Found]], ratios: Sequence[Row], rounds: int) -> dict[str, Any]:
    """Say what was measured, on what."""
    return {
        "command": "python -m benchmarks.training",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(),
        "network": "32 base channels, depth 4, one tile of 572 px a step, "
        + plan(Path("run")).compute,
        "rounds": rounds,
        "contestants": {name: summary(each) for name, each in found.items()},
        "large": f"a set of {LARGE_FACTOR} times the {LARGE_ROOM} bytes that are left for it",
        "ratios": [asdict(row) for row in ratios],
    }


def table(contestants: dict[str, Found], ratios: Sequence[Row]) -> str:
    """Lay the result out for a terminal."""
    lines = ["contestant    steps/s   peak memory"]
    for name, found in contestants.items():
        rate, peak = found.get("steps_per_second", math.nan), found.get("peak_bytes", math.nan)
        lines.append(f"{name:<12} {rate:>8.3f} {peak / 1e9:>10.2f} GB")
    return "\n".join([*lines, "", rows_table(ratios)])


if __name__ == "__main__":
    sys.exit(main())
