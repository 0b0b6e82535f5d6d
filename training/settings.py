"""Settings of a training run: few, checked when built, written into the artefact as one command."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from model.architecture import Variant
from model.artefact import MainScore
from model.geometry import Geometry
from training.data.verdict import LabelsAsked

SAMPLES = Path(__file__).parents[1] / "docs" / "samples" / "membranes"

StoredPrecision = Literal["fp32", "fp16"]
"""How an exported file can store its parameters."""

Compute = Literal["bfloat16", "float32"]
"""Arithmetic of the convolutions in training."""

PLANNED = (
    "tile_edge",
    "batch",
    "steps",
    "compute",
    "intensity",
    "border_weight",
    "border_sigma",
    "ridges",
    "object_share",
    "largest_zoom",
    "main_score",
    "learning_rate",
)
"""Settings that overrule a plan; None where nothing was asked for."""


class FitSettings(BaseSettings):
    """Train a U-Net on annotated images and export it to one ONNX file."""

    model_config = SettingsConfigDict(
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="python -m training.fit",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    data: CliPositionalArg[Path] = SAMPLES
    """Annotated images: a folder with images/ and labels/, a stack pair (*-volume.tif,
    *-labels.tif), or a Cell Tracking Challenge folder. Default: the samples in this repository."""
    out: Path
    """Folder of the run: checkpoint, model.onnx, log.jsonl, report.html."""
    resume: bool = False
    """Go on from the checkpoint in the folder."""

    labels: LabelsAsked = "auto"
    """What labels hold: ids of classes, ids of objects, or whichever they look like."""
    ignore: int | None = None
    """Value of labels that marks pixels nobody annotated: neither trained on nor scored."""
    init: Path | None = None
    """Start from the parameters of this artefact."""
    name: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]*)?$")] = ""
    """Name of the model. Default: that of the folder."""
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Names of the classes in order of their id, joined by commas."""
    data_name: str = ""
    """Name of the data in the manifest. Default: that of its folder."""
    licence: str = "unknown"
    """Terms of the data, which the parameters inherit."""
    citation: str = ""
    """What to cite when the data is used."""
    pixel_size: Annotated[float, Field(gt=0)] | None = None
    """Edge of a pixel, in µm; written into the manifest."""

    base_channels: Annotated[int, Field(ge=1)] = 32
    """Channels of the first level; the paper has 64."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    """Number of poolings; more than 6 do not fit the tiles that whole images are cut into."""
    variant: Variant = "paper"
    """The paper's network, or that of the authors' release."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Number of optimiser steps. Default: from the number of pixels."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """Tiles a step, over all processes. Default: from the device's memory."""
    tile_edge: Annotated[int, Field(ge=1)] | None = None
    """Input edge of a training tile, in px. Default: from the images and the device's memory."""
    compute: Compute | None = None
    """Arithmetic of the convolutions in training. Default: bfloat16 where the device has it."""
    intensity: Annotated[str, Field(pattern=r"^(percentile|range):[^,]+,[^,]+$")] | None = None
    """What becomes -1 and 1: percentiles of each image (percentile:0.5,99.5) or values
    (range:0,255). Default: from the images."""
    border_weight: Annotated[float, Field(ge=0)] | None = None
    """w0 of the weight map. Default: the paper's 10, or 30 where ridges are drawn."""
    border_sigma: Annotated[float, Field(gt=0)] | None = None
    """sigma of the weight map, in px. Default: from the spacing of the objects."""
    ridges: bool | None = None
    """Draw a background of 1 px between objects that touch. Default: where labels are ids of
    objects."""
    object_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the tiles that are centred on an object. Default: from the class balance."""
    largest_zoom: Annotated[float, Field(ge=1)] | None = None
    """Tiles are zoomed in and out by at most this factor. Default: from the objects' sizes."""
    elastic: bool = True
    """Deform tiles elastically."""
    main_score: MainScore | None = None
    """What chooses the best parameters and the threshold. Default: ap50 of objects, v_rand of
    cells that fill the image, iou of other classes."""

    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or the paper's SGD with momentum 0.99."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Highest learning rate, after the warm-up. Default: 0.001, or 0.0003 with --init."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises; it then falls along a cosine to 0."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Parts that the images are divided into: contiguous blocks, whole groups."""
    fold: Annotated[int, Field(ge=0)] = 2
    """The part that is not trained on but validated on, from 0; the last one if there are fewer."""
    cross_validate: bool = False
    """Train and score every fold, each in a folder of its own."""
    settled_by: Path | None = None
    """Train on every image, by what this finished run settled on those it held out: its plan, its
    decision threshold and its rule for objects."""
    validate_every: Annotated[int, Field(ge=1)] = 250
    """Steps between validations; each writes a checkpoint."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of all that is drawn at random."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    precision: StoredPrecision = "fp16"
    """How the exported file stores parameters."""
    plan_only: bool = False
    """Examine the data, print and write the plan, and stop."""
    tensorboard: bool = False
    """Write losses and scores for TensorBoard too."""

    @model_validator(mode="after")
    def _fit_together(self) -> "FitSettings":
        if self.tile_edge is not None:
            Geometry(self.depth).output_edge(self.tile_edge)
        if self.fold >= self.folds:
            raise ValueError(f"fold must lie below folds; found {self.fold} and {self.folds}")
        if self.cross_validate and self.settled_by is not None:
            raise ValueError("cross_validate holds images out, settled_by trains on all; take one")
        planned = [f"--{_kebab(name)}" for name in PLANNED if getattr(self, name) is not None]
        planned += [] if self.elastic else ["--no-elastic"]
        if self.settled_by is not None and planned:
            raise ValueError(
                f"settled_by takes the plan of that run; leave out {', '.join(planned)}"
            )
        return self

    @property
    def model_name(self) -> str:
        """The name asked for, or that of the folder in letters that a name may have."""
        folder = re.sub(r"[^a-z0-9._-]+", "-", self.out.resolve().name.lower()).strip("._-")
        return self.name or folder or "model"

    def source(self) -> dict[str, Any]:
        """Give what reads the data and divides it again, as a checkpoint keeps it."""
        fields = {"labels", "ignore", "folds", "fold"}
        return {"data": str(self.data.resolve()), **self.model_dump(mode="json", include=fields)}

    def command(self) -> str:
        """Give the command that repeats this run, with names in place of this machine's paths."""
        words = ["python", "-m", "training.fit", self.data.resolve().name, "--out"]
        words.append(self.out.resolve().name)
        for field, info in type(self).model_fields.items():
            value = getattr(self, field)
            if field in ("data", "out", "resume", "plan_only") or value == info.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{'' if value else 'no-'}{_kebab(field)}")
            else:
                words += [f"--{_kebab(field)}", _word(value)]
        return shlex.join(words)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 (pydantic passes it)
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic passes it)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic passes it)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic passes it)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the command line alone, so that a command says all there is to say."""
        return (init_settings,)


def explain(error: ValidationError) -> str:
    """Say what is wrong with each option, one a line, as one types them."""
    lines = []
    for fault in error.errors(include_url=False):
        text = fault["msg"].removeprefix("Value error, ")
        if fault["loc"] and fault["type"] == "missing":
            text = f"--{_kebab(fault['loc'][0])} is required"
        elif fault["loc"]:
            text = f"--{_kebab(fault['loc'][0])} {fault['input']}: {text}"
        lines.append(f"error: {text}")
    return "\n".join(lines)


def _word(value: object) -> str:
    """Write a value as one types it, with a name in place of this machine's path."""
    if isinstance(value, tuple):
        return ",".join(value)
    return value.name if isinstance(value, Path) else str(value)


def _kebab(field: int | str) -> str:
    return str(field).replace("_", "-")
