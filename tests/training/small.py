"""Runs that take a second: images of discs, a plan of tiny tiles, and the loop on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.architecture import Architecture
from model.geometry import Geometry
from model.intensity import IntensityRule, IntensityScale
from model.network import UNet
from training.data.dataset import AnnotatedImage
from training.plan import Plan
from training.run import checkpoint
from training.run.arithmetic import laid_out
from training.run.distributed import World
from training.run.identity import Identity
from training.run.loop import Loop
from training.run.progress import Validate, Validation
from training.settings import FitSettings
from training.tiles.augmentation import Sampler
from training.tiles.store import Store, StoredImage, prepare

CPU = torch.device("cpu")
DEPTH = 1
EDGE = 24
"""Input edge of a tile, in px; 8 px of it come out."""


def make_plan(**changes: Any) -> Plan:
    """Plan a run of a few steps with tiny tiles, all of them warped."""
    fields: dict[str, Any] = {
        "tile_edge": EDGE,
        "batch": 2,
        "steps": 6,
        "compute": "bfloat16",
        "intensity": IntensityRule(),
        "border_weight": 10.0,
        "border_sigma": 2.0,
        "ridges": True,
        "object_share": 0.5,
        "largest_zoom": 1.3,
        "elastic": True,
        "reasons": {"batch": "small"},
    }
    return Plan(**(fields | changes))


def discs(seed: int = 0, size: tuple[int, int] = (48, 60), channels: int = 1) -> AnnotatedImage:
    """Draw bright discs that touch their neighbours, on a dark and noisy ground."""
    rows, columns = np.indices(size)
    row, column = rows // 12, columns // 12
    inside = np.hypot(rows % 12 - 5.5, columns % 12 - 5.5) < 6.2
    objects = np.where(inside, row * 100 + column + 1, 0).astype(np.int32)
    noise = np.random.default_rng(seed).normal(0, 20, (channels, *size))
    image = np.clip(90 + 80 * inside + noise, 0, 255).astype(np.uint8)
    return AnnotatedImage(f"discs-{seed}", image, inside.astype(np.uint8), objects)


def stored(
    pixels: NDArray[Any],
    ids: NDArray[np.int32],
    borders: NDArray[np.float16] | None = None,
    classes: Sequence[int] | None = None,
) -> StoredImage:
    """Put an image in memory as the store has it, on a scale that leaves its pixels as they are."""
    places = np.argwhere(ids > 0)[:1].astype(np.float32)
    return StoredImage(
        pixels=pixels,
        ids=ids,
        borders=np.zeros(ids.shape, np.float16) if borders is None else borders,
        classes=np.array([0] + [1] * int(ids.max()) if classes is None else classes, np.uint8),
        centres=(places,) * len(places),
        scale=IntensityScale(-1, 1),
    )


def make_sampler(
    images: Sequence[StoredImage],
    plan: Plan | None = None,
    seed: int = 0,
    depth: int = DEPTH,
    channels: int | None = None,
) -> Sampler:
    """Sample images whose classes weigh 0.5, 2, 3 and 4, for a network that reads all channels."""
    channels = channels or max(len(image.pixels) for image in images)
    store = Store(tuple(images), channels, np.array([0.5, 2, 3, 4], np.float32))
    return Sampler(store, plan or make_plan(), Geometry(depth), seed, CPU)


def make_settings(out: Path, **changes: Any) -> FitSettings:
    """Ask for a run of a small network, which validates every second step."""
    small: dict[str, Any] = {"base_channels": 2, "depth": DEPTH, "warmup_steps": 2}
    return FitSettings(out=out, **(small | {"validate_every": 2} | changes))


def parity(network: nn.Module) -> Validation:
    """Stand in for a validation: a number that every parameter has a part in."""
    value = float(flat(network).double().sum()) % 1
    return Validation("ap50", value, 0.5, {"smallest_area": 3})


def make_loop(
    asked: FitSettings,
    plan: Plan | None = None,
    images: Sequence[AnnotatedImage] = (discs(0), discs(1, (40, 44))),
    validate: Validate = parity,
    data: str = "of this data",
    network: nn.Module | None = None,
    world: World | None = None,
) -> Loop:
    """Prepare images in the run's folder, and a network that is the same each time."""
    plan = plan or make_plan()
    architecture = Architecture(
        max(len(entry.image) for entry in images), 2, asked.depth, asked.base_channels
    )
    store = prepare(asked.out / "store", images, architecture, plan)
    sampler = Sampler(store, plan, Geometry(asked.depth), asked.seed, CPU)
    torch.manual_seed(asked.seed)
    network = network or laid_out(UNet(architecture), CPU, plan.compute)
    identity = Identity("{}", plan.model_dump(mode="json"), asked.source(), data)
    return Loop(network, sampler, validate, identity, asked, world)  # type: ignore[arg-type]  # some are no UNet


def flat(network: nn.Module) -> Tensor:
    """Give all parameters of a network as one vector."""
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def results_of(out: Path) -> dict[str, Any]:
    """Give all that a run has come to by its last checkpoint, but how fast it was."""
    state = checkpoint.load(out / "last.pt")
    for entry in state["progress"]["log"]:
        entry.pop("steps_per_second", None)
    parts = ("training", "model", "averaged_steps", "optimiser", "progress")
    return {part: state[part] for part in parts}


def same(one: Any, other: Any) -> bool:
    """Compare nested values; tensors and numbers to the last bit."""
    if isinstance(one, Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
