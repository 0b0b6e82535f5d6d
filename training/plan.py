"""What a run does, made from its data: every value with its reason."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from model.artefact import MainScore
from model.errors import DatasetError
from model.geometry import Geometry
from model.intensity import IntensityRule
from model.memory import usable_memory
from training.data.census import Census
from training.settings import Compute, FitSettings
from training.tiles.weight_map import BORDER_SIGMA, BORDER_WEIGHT

PAPER_EDGE = 572
"""Input edge of figure 1, in px."""
LARGEST_BATCH = 8
ACTIVATION_BYTES: dict[Compute, int] = {"bfloat16": 34, "float32": 66}
"""Memory of one training pass, in bytes for each channel of the first level and px of the tile:
activations of all levels and their gradients. Measured: what the peak memory of a process grows by
from a 572 to a 700 px tile."""
MEMORY_SHARE = 0.5
"""Part of the free memory that tiles may take."""
PASSES = 150
"""Times that a run looks at every pixel, if that is neither few steps nor very many."""
FEWEST_STEPS, MOST_STEPS = 2000, 12000
LEARNING_RATE = 1e-3
LESS_STEPS, LESS_RATE = 5, 0.3
"""A run that begins from learnt parameters makes so many times fewer steps, at this share of the
learning rate."""
BORDER_WIDTHS = 1.4
"""A border of this many sigma, d1 + d2 together, weighs exp(−0.98) = 0.38 of w0."""
BFLOAT16_CPUS = ("avx512_bw", "avx10_1", "bf16")
"""Any of these lets torch compute in bfloat16 without emulation: the first two on x86-64, the last
on ARM. On a processor with AVX2 alone, a step in bfloat16 took 80 times as long as in float32."""
RIDGE_WEIGHT = 30.0
"""w0 where ridges are drawn. Chosen, together with class weights by the square root, on one pair of
short runs on nuclei with one seed: AP as good as with the paper's 10 and full balance (0.802 and
0.800), at a decision threshold of 0.55 in place of 0.8. Neither was tried alone."""
LEAST_SIGMA = 3.0
"""So that a ridge's neighbourhood weighs too where most objects touch, in px."""
LEAST_ZOOM, MOST_ZOOM = 1.1, 2.0
MOST_SATURATED = 0.1
"""Share of the rarest class that the percentiles may cut off, if all of it were that bright."""
LEAST_FILLED = 0.5
"""Share of the pixels that cells fill, from which on what counts is how borders divide them."""
MOST_CONCENTRATED = 0.5
"""Of two pixels of foreground, chance to lie in one object, from which on nothing is divided."""


class Plan(BaseModel):
    """The values that a run settles before its first step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile_edge: int
    """Input edge of a training tile, in px."""
    batch: int
    """Tiles a step, over all processes."""
    steps: int
    compute: Compute
    """Arithmetic of the convolutions in training."""
    intensity: IntensityRule
    border_weight: float
    """w0 of the weight map."""
    border_sigma: float
    """sigma of the weight map, in px."""
    ridges: bool
    """Whether a background of 1 px is drawn between objects that touch."""
    object_share: float
    """Share of the tiles that are centred on an object."""
    largest_zoom: float
    """Tiles are zoomed by a factor between its inverse and itself."""
    elastic: bool
    """Whether tiles are deformed elastically."""
    main_score: MainScore | None = None
    """What the best parameters and the threshold are chosen by; None leaves it to the kind of
    labels."""
    learning_rate: float = LEARNING_RATE
    """The highest, after the warm-up."""
    reasons: dict[str, str]
    """Why each value is what it is."""

    def describe(self) -> str:
        """Lay the plan out for a terminal, one value a line."""
        rows = [(name, self._shown(name), self.reasons[name]) for name in self.reasons]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(
            f"{name:<{widths[0]}}  {value:<{widths[1]}}  {why}" for name, value, why in rows
        )

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        if isinstance(value, IntensityRule):
            of = " per channel" if value.per_channel else ""
            return f"{value.kind}:{value.low:g},{value.high:g}{of}"
        return f"{value:g}" if isinstance(value, float) else str(value)


Chosen = tuple[Any, str]


def make_plan(census: Census, settings: FitSettings, free_bytes: int, processes: int = 1) -> Plan:
    """Choose every value that was not asked for.

    Args:
        census: The training images in numbers.
        settings: What was asked for.
        free_bytes: Free memory of the training device, in bytes.
        processes: How many share a step's tiles, each on a device of its own.

    Raises:
        DatasetError: if a value that was asked for does not fit the labels.
    """
    values: dict[str, Any] = {"elastic": settings.elastic}
    reasons: dict[str, str] = {}

    def choose(name: str, rule: Callable[[], Chosen]) -> None:
        asked = getattr(settings, name)
        if asked is None:
            values[name], reasons[name] = rule()
        else:
            values[name] = asked
            if name == "intensity":
                values[name] = parse_intensity(asked, per_channel=_per_channel(census))
            reasons[name] = "asked for"

    choose("compute", lambda: _compute(settings))
    pass_bytes = partial(tile_bytes, settings.base_channels, compute=values["compute"])
    choose("tile_edge", lambda: _tile_edge(census, settings, free_bytes, pass_bytes(1)))
    choose(
        "batch",
        lambda: _batch(pass_bytes(values["tile_edge"]), settings, free_bytes, processes),
    )
    choose("steps", lambda: _steps(census, settings, values["tile_edge"], values["batch"]))
    choose("intensity", lambda: _intensity(census))
    choose("ridges", lambda: _ridges(census))
    choose("border_weight", lambda: _border_weight(ridges=values["ridges"]))
    choose("border_sigma", lambda: _border_sigma(census))
    choose("object_share", lambda: _object_share(census))
    choose("largest_zoom", lambda: _largest_zoom(census))
    choose("main_score", lambda: _main_score(census))
    choose("learning_rate", lambda: _learning_rate(settings))
    _require_main_score(settings.main_score, census)
    reasons["elastic"] = "the paper's 3×3 displacements" if settings.elastic else "asked for"
    return Plan(**values, reasons=reasons)


def free_memory(device: torch.device) -> int:
    """Give the free memory of a training device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return usable_memory()


def parse_intensity(text: str, *, per_channel: bool = False) -> IntensityRule:
    """Read `percentile:0.5,99.5` or `range:0,255`.

    Args:
        text: What was asked for.
        per_channel: Whether percentiles are those of each channel.

    Raises:
        DatasetError: if that is no rule.
    """
    kind, _, bounds = text.partition(":")
    try:
        low, high = map(float, bounds.split(","))
        rule = {"kind": kind, "low": low, "high": high}
        return IntensityRule.model_validate(
            rule | {"per_channel": per_channel and kind == "percentile"}
        )
    except ValueError as exc:
        raise DatasetError(f"--intensity {text} is no rule: {exc}") from exc


def tile_bytes(base_channels: int, edge: int, compute: Compute) -> int:
    """Estimate the memory of one training pass over one tile, in bytes."""
    return ACTIVATION_BYTES[compute] * base_channels * edge**2


def _tile_edge(
    census: Census, settings: FitSettings, free_bytes: int, bytes_a_pixel: int
) -> Chosen:
    geometry = Geometry(settings.depth)
    image = geometry.edge_for(math.ceil(census.median_edge))
    paper = geometry.edge_at_most(max(PAPER_EDGE, geometry.smallest_tiling_edge))
    room = math.isqrt(int(MEMORY_SHARE * free_bytes) // bytes_a_pixel)
    if room < min(image, paper):
        edge = geometry.edge_at_most(max(room, geometry.smallest_edge))
        return edge, f"the largest whose training pass fits {free_bytes / 1e9:.1f} GB"
    if image < paper:
        return image, f"covers the typical image, {census.median_edge:.0f} px"
    return paper, "the paper's tile" if paper == PAPER_EDGE else "the largest near the paper's tile"


def _batch(pass_bytes: int, settings: FitSettings, free_bytes: int, processes: int) -> Chosen:
    each = "" if processes == 1 else f", for each of {processes} processes"
    if not _on_cuda(settings):
        why = f"one large tile, as in the paper{each}: on a CPU a batch is no faster"
        return processes, why
    fitting = int(MEMORY_SHARE * free_bytes) // pass_bytes
    most = max(LARGEST_BATCH // processes, 1)
    why = f"as many as fit {free_bytes / 1e9:.0f} GB, up to {most}{each}"
    return processes * max(min(fitting, most), 1), why


def _on_cuda(settings: FitSettings) -> bool:
    return settings.device != "cpu" and torch.cuda.is_available()


def _steps(census: Census, settings: FitSettings, edge: int, batch: int) -> Chosen:
    learnt = Geometry(settings.depth).output_edge(edge) ** 2
    passes = PASSES * census.pixels / (learnt * batch)
    less, why = (
        (1, "") if settings.init is None else (LESS_STEPS, ": it does not begin from nothing")
    )
    steps = round(min(max(passes, FEWEST_STEPS), MOST_STEPS) / less, -2)
    seen = steps * learnt * batch / census.pixels
    return int(steps), f"every pixel is looked at {seen:.0f} times{why}"


def _learning_rate(settings: FitSettings) -> Chosen:
    if settings.init is None:
        return LEARNING_RATE, "parameters begin at random"
    return LEARNING_RATE * LESS_RATE, f"so that what {settings.init.stem} has learnt is not lost"


def _compute(settings: FitSettings) -> Chosen:
    if _on_cuda(settings):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "the GPU computes in it"
        return "float32", "the GPU has no bfloat16"
    found = torch.cpu.get_capabilities()
    if any(found.get(name) for name in BFLOAT16_CPUS):
        return "bfloat16", "the processor computes in it, several times as fast as in float32"
    return "float32", "the processor has no bfloat16, and emulating it takes many times as long"


def _intensity(census: Census) -> Chosen:
    per_channel = _per_channel(census)
    own = f"each {'channel' if per_channel else 'image'}'s own percentiles"
    rule = IntensityRule(per_channel=per_channel)
    cut = MOST_SATURATED * 100 * _rarest(census)
    if 0 < cut < rule.low:
        rule = IntensityRule(low=round(cut, 4), high=round(100 - cut, 4), per_channel=per_channel)
        return rule, f"{own}, so far out that few objects are saturated by them"
    if per_channel:
        return rule, f"{own}: on one scale, dim ones would vanish beside bright ones"
    if census.low >= 0 or any(name.startswith("float") for name in census.dtypes):
        return rule, f"{own}: exposure does not matter"
    if census.common_span is None:
        return rule, f"{own}: values are signed, but the images have no scale in common"
    low, high = census.common_span
    if low >= 0:
        return rule, f"{own}: hardly a value is negative"
    rule = IntensityRule(kind="range", low=math.floor(low), high=math.ceil(high))
    return rule, "signed values on one scale are calibrated: they mean the same in every image"


def _per_channel(census: Census) -> bool:
    """Tell whether channels are neither grey nor colour, whose balance is part of the image."""
    return census.in_channels not in (1, 3)


def _border_weight(*, ridges: bool) -> Chosen:
    if ridges:
        return RIDGE_WEIGHT, "ridges of 1 px are few: they must weigh more than the paper's borders"
    return BORDER_WEIGHT, "the paper's w0"


def _border_sigma(census: Census) -> Chosen:
    if census.median_gap is None:
        return BORDER_SIGMA, "the paper's: no two objects lie near each other"
    width = census.median_gap + 1  # d1 + d2 across a gap
    sigma = round(min(max(width / BORDER_WIDTHS, LEAST_SIGMA), 2 * BORDER_SIGMA), 1)
    return sigma, f"neighbours lie {census.median_gap:.1f} px apart, in the median"


def _ridges(census: Census) -> Chosen:
    if census.label_kind == "instance":
        return True, f"{census.touching:.0%} of the objects touch another"
    return False, "classes have no objects to keep apart"


def _object_share(census: Census) -> Chosen:
    share = _rarest(census)
    of = "objects" if census.num_classes == 2 else "the rarest class"
    if share >= 0.3:
        return 0.0, f"{share:.0%} of the pixels are of {of}: any place will do"
    return 0.5, f"{share:.1%} of the pixels are of {of}: half of the tiles are centred on an object"


def _rarest(census: Census) -> float:
    """Give the share of the rarest class but background; 0 where there is none."""
    return min((share for share in census.class_shares[1:] if share > 0), default=0.0)


def _main_score(census: Census) -> Chosen:
    if census.label_kind == "instance":
        return "ap50", "labels are ids of objects"
    if census.num_classes > 2:
        return "iou", "every class counts"
    filled = f"{1 - census.class_shares[0]:.1%} of the pixels are foreground"
    if 1 - census.class_shares[0] >= LEAST_FILLED and census.concentration < MOST_CONCENTRATED:
        return "v_rand", f"{filled}, and borders divide it"
    return "iou", f"{filled}: V_rand would not see what is found outside of it"


def _require_main_score(asked: MainScore | None, census: Census) -> None:
    if census.label_kind == "instance" and asked not in (None, "ap50"):
        raise DatasetError(
            f"--main-score {asked} would leave the objects of these labels untold; leave it out, "
            "or ask for --labels semantic."
        )
    if census.num_classes > 2 and asked not in (None, "iou"):
        raise DatasetError(
            f"--main-score {asked} knows one kind of foreground, and the labels have "
            f"{census.num_classes} classes; leave it out, or take iou."
        )


def _largest_zoom(census: Census) -> Chosen:
    if census.typical_diameters is None:
        return LEAST_ZOOM, "there are no objects to compare"
    small, large = census.typical_diameters
    zoom = round(min(max(math.sqrt(large / small), LEAST_ZOOM), MOST_ZOOM), 2)
    return zoom, f"an image's typical object measures {small:.0f} to {large:.0f} px"
