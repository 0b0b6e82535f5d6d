"""Settings of a training run: few, checked when built, written into the artefact as one command."""

import re
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from model.architecture import Variant
from model.geometry import Geometry
from training.dataset import LabelsAsked
from training.weight_map import BORDER_SIGMA, BORDER_WEIGHT

SAMPLES = Path(__file__).parents[1] / "docs" / "samples" / "membranes"

StoredPrecision = Literal["fp32", "fp16"]
"""How an exported file can store its parameters."""


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

    base_channels: Annotated[int, Field(ge=1)] = 32
    """Channels of the first level; the paper has 64."""
    depth: Annotated[int, Field(ge=1, le=6)] = 4
    """Number of poolings; more than 6 do not fit the tiles that whole images are cut into."""
    variant: Variant = "paper"
    """The paper's network, or that of the authors' release."""

    steps: Annotated[int, Field(ge=1)] = 4000
    """Number of optimiser steps."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Tiles a step; the paper prefers one large tile."""
    tile_edge: Annotated[int, Field(ge=1)] = 572
    """Input edge of a training tile, in px."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or the paper's SGD with momentum 0.99."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Highest learning rate, after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises; it then falls along a cosine to 0."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    border_weight: Annotated[float, Field(ge=0)] = BORDER_WEIGHT
    """w0 of the weight map."""
    border_sigma: Annotated[float, Field(gt=0)] = BORDER_SIGMA
    """sigma of the weight map, in px."""

    blocks: Annotated[int, Field(ge=2)] = 5
    """Contiguous blocks that the images are divided into; at most one an image."""
    validation_block: Annotated[int, Field(ge=0)] = 2
    """The block that is not trained on, from 0; the last one if there are fewer."""
    validate_every: Annotated[int, Field(ge=1)] = 250
    """Steps between validations; each writes a checkpoint."""
    seed: int = 0
    """Seed of the run's own random generators."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    precision: StoredPrecision = "fp16"
    """How the exported file stores parameters."""

    @model_validator(mode="after")
    def _fit_together(self) -> "FitSettings":
        Geometry(self.depth).output_edge(self.tile_edge)
        if self.validation_block >= self.blocks:
            raise ValueError(
                f"validation_block must lie below blocks; found {self.validation_block} "
                f"and {self.blocks}"
            )
        return self

    @property
    def model_name(self) -> str:
        """The name asked for, or that of the folder in letters that a name may have."""
        folder = re.sub(r"[^a-z0-9._-]+", "-", self.out.resolve().name.lower()).strip("._-")
        return self.name or folder or "model"

    def command(self) -> str:
        """Give the command that repeats this run, with names in place of this machine's paths."""
        words = ["python", "-m", "training.fit", self.data.resolve().name, "--out"]
        words.append(self.out.resolve().name)
        for field, info in type(self).model_fields.items():
            value = getattr(self, field)
            if field not in ("data", "out", "resume") and value != info.default:
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words += [f"--{_kebab(field)}", text]
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


def _kebab(field: int | str) -> str:
    return str(field).replace("_", "-")
