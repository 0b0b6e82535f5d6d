"""The requests of a soak.

Good ones have their answers, bad ones their statuses; of others, the client leaves.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from model import averaging
from model.artefact import Averaging
from model.planner import TileShapes
from model.runtime import Runtime
from model.segmentation import Wanted, output_for
from service.masks import encode
from service.negotiation import AnswerFormat

Kind = Literal["good", "bad", "cancelled"]
PNG, JPEG, TIFF = "image/png", "image/jpeg", "image/tiff"


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what must come of it."""

    name: str
    kind: Kind
    path: str
    body: bytes
    content_type: str
    status: int = 200
    """What a bad request is answered."""
    answer: bytes = b""
    """What a good one is answered: the PNG, or the segments as JSON."""
    as_form: bool = False
    sent: float = 1.0
    """Share of the body that a client has sent when it leaves."""


def good_cases(runtime: Runtime, shapes: TileShapes) -> Iterator[Case]:
    """Give images of several sizes and formats, each asked for in several ways."""
    ways = product(("labels", "instances"), AnswerFormat, ("none", "rotations"))
    for (name, content_type, body, image), (output, form, average) in product(images(), ways):
        query = f"output={output}&format={form.name.lower()}&average={average}"
        yield Case(
            f"{name}?{query}",
            "good",
            f"/segment?{query}",
            body,
            content_type,
            answer=expected(runtime, shapes, image, output, form, average),
            as_form=average == "none",
        )


def expected(
    runtime: Runtime,
    shapes: TileShapes,
    image: NDArray[Any],
    wanted: Wanted,
    form: AnswerFormat,
    average: Averaging,
) -> bytes:
    """Compute in this process what an image (C, H, W) must be answered."""
    manifest = runtime.manifest
    output = output_for(wanted, manifest, average)
    passes = averaging.begin(image, manifest, shapes, averaging=average, output=output)
    for work in passes:
        work.complete(runtime)
    found = passes[0].labels() if wanted == "labels" else passes[0].objects()
    content = encode(found, manifest.classes, form)
    if isinstance(content, bytes):
        return content
    return segments_of([segment.model_dump(mode="json", by_alias=True) for segment in content])


def segments_of(segments: Sequence[dict[str, Any]]) -> bytes:
    """Write the segments of a JSON answer in one way only."""
    return json.dumps(segments, sort_keys=True).encode()


def images() -> Iterator[tuple[str, str, bytes, NDArray[Any]]]:
    """Give name, content type, file, and pixels (C, H, W)."""
    for height, width in ((1, 1), (37, 90), (150, 200)):
        grey = noise(height, width)
        yield f"grey-{height}", PNG, written(grey, "PNG"), grey[np.newaxis]
    colour = noise(80, 64, 3)
    yield "colour", PNG, written(colour, "PNG"), colour.transpose(2, 0, 1)
    photo = written(noise(120, 140, 3), "JPEG")
    with Image.open(io.BytesIO(photo)) as picture:
        yield "photo", JPEG, photo, np.asarray(picture).transpose(2, 0, 1)
    deep = noise(100, 60).astype(np.uint16) * 200
    yield "deep", TIFF, tiff(deep, compression="zlib"), deep[np.newaxis]
    floats = noise(60, 100).astype(np.float32) / 7
    yield "floats", TIFF, tiff(floats), floats[np.newaxis]


def bad_cases() -> Iterator[Case]:
    """Give requests that must be refused, each for another reason."""
    image = written(noise(60, 70), "PNG")
    hole = np.full((20, 20), np.nan, np.float32)
    refused: tuple[tuple[str, str, bytes, str, int], ...] = (
        ("truncated", "", image[: len(image) // 2], PNG, 400),
        ("truncated photo", "", written(noise(60, 70), "JPEG")[:900], JPEG, 400),
        ("no image", "", b"GIF89a, and no more", PNG, 400),
        ("empty", "", b"", PNG, 400),
        ("another type", "", image, "text/plain", 415),
        ("another format than said", "", image, JPEG, 400),
        ("no numbers", "", tiff(hole), TIFF, 422),
        ("two pages", "", tiff(noise(2, 40, 40)), TIFF, 422),
        ("unknown parameter", "?colour=red", image, PNG, 422),
        ("unknown output", "?output=poems", image, PNG, 422),
        ("unknown model", "?model=nobody", image, PNG, 404),
        ("unknown format", "?format=bmp", image, PNG, 406),
    )
    for name, query, body, content_type, status in refused:
        yield Case(name, "bad", f"/segment{query}", body, content_type, status)
    yield Case("unknown route", "bad", "/segmnet", image, PNG, 404)
    yield Case("wrong method", "bad", "/readyz", image, PNG, 405)


def cancelled_cases() -> Iterator[Case]:
    """Give requests whose client leaves: within the upload, or before the answer."""
    image = written(noise(300, 260), "PNG")
    for query, sent in (("", 0.0), ("", 0.5), ("", 1.0), ("?average=rotations", 1.0)):
        yield Case(
            f"left at {sent:.0%}{query}", "cancelled", f"/segment{query}", image, PNG, sent=sent
        )


def noise(*shape: int) -> NDArray[np.uint8]:
    """Give pixels; the same each time."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def written(pixels: NDArray[Any], form: str) -> bytes:
    """Write (H, W) or (H, W, 3) as PNG or JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def tiff(pixels: NDArray[Any], **options: Any) -> bytes:
    """Write (H, W), or pages of it, as TIFF."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="minisblack", **options)
    return file.getvalue()
