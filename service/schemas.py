"""The JSON of the interface."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.artefact import Averaging, Manifest
from model.segmentation import Wanted
from model.sessions import Provider

LoadedState = Literal["warming-up", "ready", "failed"]
ServedState = Literal["warming-up", "ready", "failed", "unloaded"]
"""`unloaded`: let go, or not opened yet, for want of memory, and opened by the next request."""
ChangeKind = Literal["added", "swapped", "removed", "refused", "unloaded", "loaded"]


class SegmentQuery(BaseModel):
    """Query parameters of `POST /segment`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, description="Name of the model; see /models.")
    output: Wanted = Field(
        default="labels", description="The class of every pixel, or objects with an id each."
    )
    average: Averaging | None = Field(
        default=None,
        description=(
            "`rotations` averages the probabilities of the image in its 8 rotations and mirrors, "
            "at 8 times the work. What the model's manifest says, unless it is asked for here."
        ),
    )
    format: str | None = Field(
        default=None,
        description="Wins over `Accept`.",
        json_schema_extra={"enum": ["png", "json"]},
    )


class ModelUsed(BaseModel):
    """Which model made an answer, and on what it ran."""

    name: str
    sha256: str = Field(description="Digest of the artefact.")
    provider: Provider = Field(description="What ran it, as the session itself says.")
    device: str = Field(description="`cpu`, or GPUs by their numbers, as in `cuda:0`.")
    precision: str = Field(
        description="What was computed in; the manifest says what the parameters are stored as."
    )


class RunLength(BaseModel):
    """A mask in COCO run-length encoding; `pycocotools.mask.decode` reads it."""

    size: tuple[int, int] = Field(description="Height and width, in px.")
    counts: str


class Segment(BaseModel):
    """The pixels of one class, or of one object."""

    model_config = ConfigDict(populate_by_name=True)

    id: int = Field(description="Of the class or, with `output=instances`, of the object.")
    class_name: str = Field(alias="class")
    area: int = Field(description="In px.")
    bbox: tuple[int, int, int, int] = Field(description="Left, top, width, height, in px.")
    rle: RunLength


class Timings(BaseModel):
    """Where the time of a request went, in ms."""

    upload_ms: float
    decode_ms: float = Field(description="With the header, and what makes tiles of the image.")
    queue_ms: float
    inference_ms: float
    decide_ms: float = Field(description="From probabilities to labels or objects.")
    encode_ms: float


class SegmentAnswer(BaseModel):
    """The answer of `POST /segment` as JSON."""

    model: ModelUsed
    output: Wanted
    averaging: Averaging
    size: tuple[int, int] = Field(description="Height and width of the image, in px.")
    segments: list[Segment]
    timings: Timings


class ServedModel(BaseModel):
    """A model that is served."""

    name: str
    sha256: str
    provider: Provider | None = Field(description="Null before it was ever opened.")
    device: str | None
    precision: str | None = Field(description="What is computed in.")
    state: ServedState = Field(
        description="`unloaded` is not open for want of memory; the next request opens it."
    )
    manifest: Manifest


class RefusedArtefact(BaseModel):
    """A file in the folder of models that is not served."""

    file: str
    code: str = Field(description="Stable; that of the error.")
    detail: str


class ModelList(BaseModel):
    """The answer of `GET /models`."""

    models: list[ServedModel]
    refused: list[RefusedArtefact] = Field(
        description="Files that are not served, and why; what was served in their place still is."
    )


class ModelChange(BaseModel):
    """What came of a file."""

    change: ChangeKind
    name: str = Field(description="Of the model; of a file that was refused, its own.")
    sha256: str | None = Field(description="Of the artefact that is served, or was until now.")


class Reloaded(BaseModel):
    """The answer of `POST /models/reload`."""

    changes: list[ModelChange] = Field(description="What is not as it was before; often nothing.")
    refused: list[RefusedArtefact] = Field(description="Every file that is not served, and why.")


class Alive(BaseModel):
    """The answer of `GET /healthz`."""

    status: Literal["alive"] = "alive"


class ModelState(BaseModel):
    """How far a model is, and where it really runs."""

    name: str
    provider: Provider | None = Field(description="Null before it was ever opened.")
    device: str | None
    precision: str | None = Field(description="What is computed in.")
    state: ServedState
    tile_shapes: tuple[tuple[int, int], ...] = Field(
        description="Tiles that are warmed up, height and width in px."
    )


class Readiness(BaseModel):
    """The answer of `GET /readyz` when every model is ready, or opened when it is asked for."""

    status: Literal["ready"] = "ready"
    models: list[ModelState]


class Problem(BaseModel):
    """An error, as RFC 9457 has it; some have numbers of their own beside."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Stable; other programs may rely on it.")
    title: str
    status: int
    detail: str
    request_id: str
