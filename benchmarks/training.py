"""What the training loop costs beyond its network: `python -m benchmarks.training`.

Contestants train one network on tiles of one size, each in a process of its own, in turns:

- `bare`: the network, its loss and its optimiser in a plain torch loop; tiles made beforehand;
- `ours`: the loop of `training.fit`: elastic tiles drawn while the network runs, averaging, log;
- `monai`: MONAI's `Rand2DElasticd`, rotation, flips and noise behind its loader, and the same step;
- `our tiles`, `monai tiles`: the tiles alone, drawn by one thread;
- `large`: ours, on a set ten times the memory that the process is allowed to use (needs a
  writable memory control group).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
from training.tiles.store import Store, StoredImage, prepare

RESULT = Path(__file__).parent / "results" / "training.json"
EDGE = 572
ARCHITECTURE = Architecture(in_channels=1, num_classes=2, depth=4, base_channels=32)
WARM_UP, STEPS, ROUNDS = 4, 24, 3
IMAGES, IMAGE_EDGE = 2, 1024
LARGE_BYTES = 1 << 30
"""Memory that the contestant `large` may use from its first step on."""
LARGE_FACTOR = 10
BYTES_A_PIXEL = 7
"""Of a store: an 8-bit grey value, an id and a weight."""
GEOMETRY = Geometry(ARCHITECTURE.depth)
BARS = {
    "ours / bare": 0.95,
    "ours / monai": 1.5,
    "our tiles / monai tiles": 1.5,
    "large / ours": 0.9,
}


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write the result; or be one contestant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args(words)
    if arguments.contestant:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(CONTESTANTS[arguments.contestant](Path(folder))))
        return 0
    found: dict[str, list[dict[str, float]]] = {
        name: [] for name in CONTESTANTS if name != "large" or memory_group()
    }
    for _ in range(arguments.rounds):
        for name in found:
            found[name].append(start(name))
    result = record(found, arguments.rounds)
    print(table(result))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    return int(any(row["ratio"] < row["bar"] for row in result["ratios"]))


def start(name: str) -> dict[str, float]:
    """Run one contestant in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", "--contestant", name]
    done = subprocess.run(  # noqa: S603 (our own module)
        command, cwd=ROOT, check=True, capture_output=True, text=True
    )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name:>12}  {row['steps_per_second']:.3f} steps/s  {row['peak_bytes'] / 1e9:.2f} GB")
    return row


def bare(folder: Path) -> dict[str, float]:
    """The step alone, on tiles that lie in memory."""
    sampler = Sampler(make_store(folder), plan(folder), GEOMETRY, 0, torch.device("cpu"))
    drawn = [sampler.draw(step, [0]) for step in range(WARM_UP + STEPS)]
    step = make_step(folder)
    return timed(step(tiles.pixels, tiles.labels, tiles.weights) for tiles in drawn)


def ours(folder: Path) -> dict[str, float]:
    """The loop of `training.fit`, without validations."""
    return run_loop(folder, make_store(folder))


def large(folder: Path) -> dict[str, float]:
    """The same loop, on more than the process may keep in memory."""
    copies = LARGE_FACTOR * LARGE_BYTES // (BYTES_A_PIXEL * IMAGE_EDGE**2)
    store = make_store(folder)
    images = [copied(store.images[0], folder / str(copy)) for copy in range(copies)]
    limit_memory(LARGE_BYTES)
    return run_loop(folder, replace(store, images=tuple(images)))


def copied(image: StoredImage, folder: Path) -> StoredImage:
    """Write an image's maps once more, and map the copy."""
    folder.mkdir()

    def map_copy(name: str) -> NDArray[Any]:
        array = getattr(image, name)
        array.tofile(folder / name)
        return np.memmap(folder / name, array.dtype, "r", shape=array.shape)

    return replace(
        image, pixels=map_copy("pixels"), ids=map_copy("ids"), borders=map_copy("borders")
    )


def our_tiles(folder: Path) -> dict[str, float]:
    """Tiles of ours alone, drawn by one thread."""
    sampler = Sampler(make_store(folder), plan(folder), GEOMETRY, 0, torch.device("cpu"))
    torch.set_num_threads(1)
    return timed(sampler.draw(step, [0]) for step in range(WARM_UP + STEPS))


def monai_tiles(folder: Path) -> dict[str, float]:
    """MONAI's tiles alone, drawn by one thread."""
    loader = monai_loader(folder, workers=0)
    torch.set_num_threads(1)
    return timed(batch for _, batch in zip(range(WARM_UP + STEPS), loader, strict=False))


def monai(folder: Path) -> dict[str, float]:
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


CONTESTANTS: dict[str, Callable[[Path], dict[str, float]]] = {
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


def timed(steps: Iterator[object]) -> dict[str, float]:
    """Take steps, and time those after the warm-up."""
    for _ in range(WARM_UP):
        next(steps)
    began = time.perf_counter()
    count = sum(1 for _ in steps)
    return row(count / (time.perf_counter() - began))


def run_loop(folder: Path, store: Store) -> dict[str, float]:
    """Run our loop and take its rate over the steps after the warm-up."""
    asked = settings(folder)
    device, planned = torch.device("cpu"), plan(folder)
    sampler = Sampler(store, planned, GEOMETRY, asked.seed, device)
    network = laid_out(UNet(ARCHITECTURE), device, planned.compute)
    loop = Loop(network, sampler, _no_validation, Identity("{}", {}, {}, ""), asked)
    marks: list[float] = []
    original = loop.descent.step

    def step(step: int, tiles: Any) -> float:
        loss = original(step, tiles)
        marks.append(time.perf_counter())
        return loss

    loop.descent.step = step  # type: ignore[method-assign]  # a clock at every step
    loop.run()
    return row(STEPS / (marks[-1] - marks[WARM_UP - 1]))


def _no_validation(_: nn.Module) -> Validation:
    return Validation("none", 0.0, None)


def row(rate: float) -> dict[str, float]:
    """Give a contestant's rate, and the most memory that its process had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"steps_per_second": rate, "peak_bytes": peak}


def settings(folder: Path) -> FitSettings:
    """Ask for the tile and the steps that are measured."""
    steps = WARM_UP + STEPS
    return FitSettings(
        out=folder, steps=steps, tile_edge=EDGE, validate_every=10**6, batch=1, device="cpu"
    )


def plan(folder: Path) -> Plan:
    """Plan a run on the images that are measured."""
    return make_plan(take_census(make_images()[:1]), settings(folder), 1 << 40)


def make_images() -> list[AnnotatedImage]:
    """Make images of blobs; one pattern recurs, since only the pixels' number matters here."""
    pixels, labels = (
        np.tile(array, (2, 2)) for array in generate("blobs", (IMAGE_EDGE // 2,) * 2, 0)
    )
    semantic = (labels > 0).astype(np.uint8)
    return [
        AnnotatedImage(f"blobs-{number}", pixels[None], semantic, labels.astype(np.int32))
        for number in range(IMAGES)
    ]


def make_store(folder: Path) -> Store:
    """Prepare the images as `training.fit` does."""
    return prepare(folder / "store", make_images(), ARCHITECTURE, plan(folder))


def record(found: dict[str, list[dict[str, float]]], rounds: int) -> dict[str, Any]:
    """Say what was measured, on what: medians, and ratios within each round."""
    ratios = []
    for name, bar in BARS.items():
        first, second = name.split(" / ")
        if first in found and second in found:
            pairs = zip(found[first], found[second], strict=True)
            each = [one["steps_per_second"] / other["steps_per_second"] for one, other in pairs]
            ratios.append(
                {"ratio_of": name, "ratio": statistics.median(each), "bar": bar, "rounds": each}
            )
    return {
        "command": "python -m benchmarks.training",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
        "network": "32 base channels, depth 4, one tile of 572 px a step, "
        + plan(Path("run")).compute,
        "rounds": rounds,
        "contestants": {
            name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            for name, rows in found.items()
        },
        "large": f"{LARGE_FACTOR} times the {LARGE_BYTES} bytes that its process may use",
        "ratios": ratios,
    }


def table(result: dict[str, Any]) -> str:
    """Lay the result out for a terminal."""
    lines = ["contestant    steps/s   peak memory"]
    for name, found in result["contestants"].items():
        lines.append(
            f"{name:<12} {found['steps_per_second']:>8.3f} {found['peak_bytes'] / 1e9:>10.2f} GB"
        )
    lines.append("ratio                         found     bar")
    for found in result["ratios"]:
        verdict = "" if found["ratio"] >= found["bar"] else "   missed"
        lines.append(
            f"{found['ratio_of']:<26} {found['ratio']:>8.3f} {found['bar']:>7.2f}{verdict}"
        )
    return "\n".join(lines)


def memory_group() -> Path | None:
    """Find where a control group that limits memory can be made, if anywhere."""
    for root, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup", root, "unet-training-bench")
        try:
            group.mkdir(exist_ok=True)
        except OSError:
            continue
        if (group / limit).exists():
            return group / limit
        group.rmdir()
    return None


def limit_memory(size: int) -> None:
    """Bound the memory of this process, pages of mapped files included, from now on."""
    limit = memory_group()
    if limit is None:
        raise OSError("no control group can be made")
    limit.write_text(str(size))
    (limit.parent / "cgroup.procs").write_text(str(os.getpid()))


if __name__ == "__main__":
    sys.exit(main())
