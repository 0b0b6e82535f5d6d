"""The served file: one ONNX graph, and the manifest that says what it is.

    ┌───────────────────────────┬──────────────────────────────┐
    │ graph and parameters      │ manifest (metadata_props)    │
    │ `graph_bytes` bytes       │ JSON, and a digest of both   │
    └───────────────────────────┴──────────────────────────────┘

The parts of a protobuf message may be concatenated, so the whole is an ordinary ONNX file. The
manifest stands last: it can be written anew, with the scores of the graph that it describes,
without a byte of that graph changing, and the digest finds any that did.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from model.architecture import Architecture
from model.errors import (
    ArtefactDamaged,
    ArtefactNotFound,
    GeometryError,
    ManifestInvalid,
    ManifestMismatch,
    ManifestMissing,
    ManifestVersionError,
)
from model.geometry import Geometry
from model.instances import InstanceRule
from model.intensity import IntensityRule

MANIFEST_VERSION = 1
MANIFEST_KEY = "unet.manifest"
DIGEST_KEY = "unet.sha256"

Precision = Literal["fp32", "fp16", "int8"]
LARGEST_LOSS = 0.005
"""What a graph may lose of its main score where fewer bits are computed in than float32's."""
LabelKind = Literal["semantic", "instance"]
MainScore = Literal["ap50", "v_rand", "iou"]
"""What artefacts for the same labels are compared by, and settled by: of objects, of the division
into cells, or of the pixels of every class."""
Averaging = Literal["none", "rotations"]
"""Whether an image is segmented once, or in all its rotations and mirrors, whose probabilities are
averaged."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassInfo(_Frozen):
    """A class of the label map."""

    id: int = Field(ge=0, le=255)
    """Value in the label map."""
    name: str = Field(min_length=1)
    colour: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
    """Colour in the PNG's palette, as #rrggbb."""


class TrainingRecord(_Frozen):
    """What the parameters were learnt from."""

    data: str
    """Name of the data."""
    licence: str
    """Terms of the data, which the parameters inherit."""
    citation: str = ""
    label_kind: LabelKind = "semantic"
    """Whether the annotation has ids of classes or of objects."""
    label_values: tuple[int, ...] = ()
    """Values of the classes in the label files, by class; empty for labels of objects and in files
    older than this field."""
    ignore: int | None = None
    """Value of the labels that marked pixels nobody annotated."""
    main_score: MainScore | None = None
    """What threshold and parameters were chosen by; None leaves it to the kind of labels."""
    data_sha256: str
    """Digest over all images and labels, training and validation."""
    began_from: str = ""
    """Digest of the artefact whose parameters training began with; empty where they were drawn."""
    training_images: tuple[str, ...]
    training_sha256: tuple[str, ...] = ()
    """Digest of the pixels of every training image, and of those of the model begun from, so that
    none is ever scored as unseen."""
    validation_images: tuple[str, ...]
    steps: int
    """Optimiser steps behind these parameters: those of the best validation."""
    command: str
    """The command that made this file."""


class ScoreRecord(_Frozen):
    """Scores of a graph, run tile by tile as the service runs it."""

    of: str = ""
    """Where the parameters were learnt from every image, so that none is left to score: digest of
    the file, made by the same plan without these images, whose scores these are. Otherwise empty:
    they are this file's own."""
    images: tuple[str, ...]
    """Names of the images scored, none of which was trained on."""
    values: dict[str, Any]
    """Scores by name, as `training.evaluate` writes them."""


class PrecisionScore(_Frozen):
    """What a graph scores on validation where its floats are computed in fewer bits."""

    score: str
    """Name of the main score."""
    fp32: FiniteFloat
    """In float32."""
    this: FiniteFloat
    """In this precision."""

    @property
    def passed(self) -> bool:
        """Whether so little is lost that a runtime may compute in it unasked."""
        return self.fp32 - self.this <= LARGEST_LOSS


class Manifest(_Frozen):
    """All that serving needs to know about a graph."""

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    architecture: Architecture
    graph_bytes: int = Field(default=0, ge=0)
    """Length of the graph, in bytes from the start of the file; 0 before there is one."""
    precision: Precision = "fp32"
    """`fp16`: parameters stored as float16; computation is in float32."""
    intensity: IntensityRule = IntensityRule()
    classes: tuple[ClassInfo, ...]
    decision_threshold: float | None = Field(default=None, gt=0, lt=1)
    """With two classes, the probability of class 1 from which a pixel belongs to it; without a
    threshold, the most probable class wins."""
    instances: InstanceRule | None = None
    """How objects are told apart; None where none were annotated one by one."""
    averaging: Averaging = "none"
    """What the service does unless a request asks otherwise."""
    pixel_size: float | None = Field(default=None, gt=0)
    """Edge of a pixel in µm, in the images trained on."""
    training: TrainingRecord
    scores: ScoreRecord | None = None
    precisions: dict[Literal["bf16"], PrecisionScore] = {}
    """What a runtime may compute in, but float32, as far as it was measured on the file that the
    scores are of: on a processor without bfloat16 it is not, and the graph is run in float32."""
    created: date
    software: dict[str, str]
    """Versions of the software that made this file."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        ids = [entry.id for entry in self.classes]
        if ids != list(range(self.architecture.num_classes)):
            raise ValueError(
                f"classes must have the ids 0 to {self.architecture.num_classes - 1}; found {ids}"
            )
        if self.decision_threshold is not None and len(ids) != 2:
            raise ValueError("a decision threshold needs two classes")
        return self

    @property
    def geometry(self) -> Geometry:
        """Geometry of the network."""
        return Geometry(self.architecture.depth)

    def decide(self, logits: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Turn logits (K, H, W) into a label map (H, W) of class ids."""
        if self.margin is None:
            labels: NDArray[Any] = np.argmax(logits, axis=0)
        else:
            labels = logits[1] - logits[0] >= self.margin
        return labels.astype(np.uint8)

    @property
    def margin(self) -> np.float32 | None:
        """By how much class 1 must exceed class 0, in logits; None lets the largest logit win."""
        if self.decision_threshold is None:
            return None
        return np.float32(math.log(self.decision_threshold / (1 - self.decision_threshold)))


class Port(Protocol):
    """An input or output of a graph, as ONNX Runtime describes it."""

    name: str
    type: str
    shape: Sequence[int | str | None]


@dataclass(frozen=True, slots=True)
class Artefact:
    """A file that was found to be whole."""

    path: Path
    sha256: str
    """Digest of the whole file: what every answer names."""
    manifest: Manifest


def pack(graph: bytes, manifest: Manifest) -> bytes:
    """Join a serialised ONNX graph without metadata and its manifest to one file."""
    from onnx import ModelProto, StringStringEntryProto  # serving has no onnx

    text = manifest.model_copy(update={"graph_bytes": len(graph)}).model_dump_json()
    entries = {MANIFEST_KEY: text, DIGEST_KEY: _digest(graph, text)}
    tail = ModelProto(
        metadata_props=[StringStringEntryProto(key=key, value=entries[key]) for key in entries]
    )
    return graph + bytes(tail.SerializeToString())


def read_bytes(path: Path) -> bytes:
    """Read a whole artefact.

    Raises:
        ArtefactNotFound: if there is no file, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ArtefactNotFound(f"{path} cannot be read: {exc.strerror or exc}.") from exc


def read_manifest(path: Path, metadata: Mapping[str, str]) -> Manifest:
    """Read the manifest out of a graph's metadata.

    Raises:
        ManifestMissing: if the metadata holds none.
        ManifestVersionError: if it is of another version.
        ManifestInvalid: if its fields do not have the documented form.
    """
    if MANIFEST_KEY not in metadata:
        raise ManifestMissing(
            f"{path} is an ONNX graph without a manifest; `python -m training.export` writes one."
        )
    try:
        fields = json.loads(metadata[MANIFEST_KEY])
        version = fields["version"]
    except (ValueError, KeyError, TypeError) as exc:
        raise ManifestInvalid(f"The manifest of {path} is no JSON object with a version.") from exc
    if version != MANIFEST_VERSION:
        raise ManifestVersionError(
            f"The manifest of {path} has version {version!r}, this software reads "
            f"{MANIFEST_VERSION}."
        )
    try:
        return TypeAdapter(Manifest).validate_json(metadata[MANIFEST_KEY])
    except (ValidationError, GeometryError) as exc:
        raise ManifestInvalid(f"The manifest of {path} does not have the form: {exc}") from exc


def verify_ports(
    path: Path, manifest: Manifest, inputs: Sequence[Port], outputs: Sequence[Port]
) -> None:
    """Hold a graph's inputs and outputs against its manifest.

    Raises:
        ManifestMismatch: saying what the manifest describes and what the graph has.
    """
    described = [
        ("tile", "tensor(float)", manifest.architecture.in_channels),
        ("logits", "tensor(float)", manifest.architecture.num_classes),
    ]
    ports = [*inputs, *outputs]
    found = [(port.name, port.type, _channels(port)) for port in ports]
    if found != described:
        raise ManifestMismatch(
            f"The graph of {path} has (name, type, channels) {found}; "
            f"its manifest describes {described}."
        )
    if any(isinstance(port.shape[axis], int) for port in ports for axis in (0, 2, 3)):
        raise ManifestMismatch(
            f"The graph of {path} fixes a batch or an edge, all must be dynamic: "
            f"{[list(port.shape) for port in ports]}."
        )


def verify_digest(
    path: Path, data: bytes, manifest: Manifest, metadata: Mapping[str, str]
) -> Artefact:
    """Find out whether graph and manifest are those that were written.

    Raises:
        ArtefactDamaged: if any byte differs.
    """
    digest = _digest(data[: manifest.graph_bytes], metadata[MANIFEST_KEY])
    if digest != metadata.get(DIGEST_KEY):
        raise ArtefactDamaged(
            f"{path} is damaged: its graph and manifest give the digest {digest[:12]}…, "
            f"written was {str(metadata.get(DIGEST_KEY))[:12]}…. Copy or export it again."
        )
    return Artefact(path, hashlib.sha256(data).hexdigest(), manifest)


def _channels(port: Port) -> int | str | None:
    return port.shape[1] if len(port.shape) == 4 else None


def _digest(graph: bytes, manifest: str) -> str:
    return hashlib.sha256(graph + manifest.encode()).hexdigest()
