"""Bad requests and faults of ours: every answer is a problem that helps, and none is the last."""

import json
import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile

from model.errors import InferenceFailed
from model.runtime import Runtime
from service import masks
from tests.service.conftest import (
    MAX_IMAGE_PIXELS,
    MAX_UPLOAD_BYTES,
    Log,
    TestClient,
    noise,
    png,
    tiff,
)

IMAGE = png(noise(20, 30))
PNG, TIFF = {"content-type": "image/png"}, {"content-type": "image/tiff"}


def pages(count: int) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, noise(count, 8, 9), photometric="minisblack")
    return buffer.getvalue()


def with_pixel(value: float) -> bytes:
    pixels = noise(8, 9).astype(np.float32)
    pixels[2, 3] = value
    return tiff(pixels)


def of_size(width: int, height: int) -> bytes:
    """Rewrite the size in a PNG's header, as a decompression bomb has it."""
    header = b"IHDR" + struct.pack(">II", width, height) + IMAGE[24:29]
    return IMAGE[:12] + header + struct.pack(">I", zlib.crc32(header)) + IMAGE[33:]


@dataclass(frozen=True)
class Bad:
    """A bad request, and what is answered."""

    name: str
    status: int
    type: str
    says: str
    """Part of the detail."""
    request: dict[str, Any] = field(default_factory=dict)
    """What httpx is given beside the path."""
    path: str = "/segment"
    method: str = "POST"


def raw(body: bytes, headers: dict[str, str] = PNG, **query: str) -> dict[str, Any]:
    return {"content": body, "headers": headers, "params": query}


def form(**fields: tuple[str, bytes, str]) -> dict[str, Any]:
    return {"files": fields}


BAD = [
    Bad("no body", 400, "image-missing", "no body"),
    Bad("no field image", 400, "image-missing", "it has 'file'", form(file=("a", IMAGE, ""))),
    Bad("empty body", 400, "image-empty", "no bytes", raw(b"")),
    Bad("empty file", 400, "image-empty", "no bytes", form(image=("a.png", b"", "image/png"))),
    Bad("not an image", 400, "image-unreadable", "starts with 'hello'", raw(b"hello")),
    Bad("truncated png", 400, "image-unreadable", "truncated", raw(IMAGE[:-40])),
    Bad("truncated tiff", 400, "image-unreadable", "damaged", raw(tiff(noise(9, 9))[:200], TIFF)),
    Bad("png sent as tiff", 400, "image-unreadable", "those of a PNG", raw(IMAGE, TIFF)),
    Bad(
        "type not read",
        415,
        "image-type-refused",
        "'image/gif'",
        raw(IMAGE, {"content-type": "image/gif"}),
    ),
    Bad(
        "upload too large",
        413,
        "upload-too-large",
        f"{MAX_UPLOAD_BYTES:,} bytes",
        raw(bytes(MAX_UPLOAD_BYTES + 1)),
    ),
    Bad(
        "decompression bomb",
        413,
        "image-too-large",
        f"50000 × 40000 = 2,000,000,000 pixels; the limit is {MAX_IMAGE_PIXELS:,}",
        raw(of_size(50_000, 40_000)),
    ),
    Bad("unknown model", 404, "model-not-found", "there are tiny", raw(IMAGE, model="large")),
    Bad("unknown format", 406, "format-not-acceptable", "png, json", raw(IMAGE, format="gif")),
    Bad(
        "unknown accept",
        406,
        "format-not-acceptable",
        "image/png, application/json",
        raw(IMAGE, PNG | {"accept": "text/html"}),
    ),
    Bad(
        "unknown output",
        422,
        "parameter-invalid",
        "'output' is 'edges': Input should be 'labels' or 'instances'",
        raw(IMAGE, output="edges"),
    ),
    Bad(
        "unknown averaging",
        422,
        "parameter-invalid",
        "'average' is 'mirrors': Input should be 'none' or 'rotations'",
        raw(IMAGE, average="mirrors"),
    ),
    Bad(
        "unknown parameter",
        422,
        "parameter-invalid",
        "no parameter 'fromat'; there are model, output, average, format",
        raw(IMAGE, fromat="json"),
    ),
    Bad(
        "parameter in the form",
        400,
        "form-invalid",
        "/segment?format=",
        {"files": {"image": ("a.png", IMAGE, "image/png")}, "data": {"format": "json"}},
    ),
    Bad("several pages", 422, "image-pages-refused", "3 pages", raw(pages(3), TIFF)),
    Bad("not a number", 422, "image-values-invalid", "1 of", raw(with_pixel(np.nan), TIFF)),
    Bad("infinite pixel", 422, "image-values-invalid", "1 of", raw(with_pixel(np.inf), TIFF)),
    Bad("zero-sized image", 422, "image-values-invalid", "0 × 7", raw(of_size(0, 7))),
    Bad("unknown path", 404, "not-found", "/segments", path="/segments"),
    Bad("wrong method", 405, "method-not-allowed", "GET /segment", method="GET"),
]

every_bad_request = pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)


def send(client: TestClient, bad: Bad) -> Any:
    return client.request(bad.method, bad.path, **bad.request)


@every_bad_request
def test_a_bad_request_has_its_status_and_its_type(client: TestClient, bad: Bad) -> None:
    answer = send(client, bad)
    found = (answer.status_code, answer.json()["status"], answer.json()["type"])
    assert found == (bad.status, bad.status, f"urn:unet-service:{bad.type}")


@every_bad_request
def test_a_bad_request_is_told_what_was_found(client: TestClient, bad: Bad) -> None:
    assert bad.says in send(client, bad).json()["detail"]


@every_bad_request
def test_a_bad_request_is_answered_by_a_problem(client: TestClient, bad: Bad) -> None:
    answer = send(client, bad)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail", "request_id"}


@every_bad_request
def test_a_problem_has_the_request_id_of_its_header(client: TestClient, bad: Bad) -> None:
    answer = send(client, bad)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@every_bad_request
def test_a_good_request_is_answered_after_a_bad_one(client: TestClient, bad: Bad) -> None:
    send(client, bad)
    assert client.post("/segment", **raw(IMAGE)).status_code == 200


def test_a_refused_method_says_which_is_allowed(client: TestClient) -> None:
    assert client.get("/segment").headers["allow"] == "POST"


SECRET = "a secret of the inside"  # noqa: S105 (not a password)


@pytest.fixture
def broken(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Give a client of a service that fails when it encodes a mask."""

    def encode(*_: object) -> bytes:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(masks, "encode_png", encode)
    return client


def test_a_fault_of_ours_is_a_problem_with_status_500(broken: TestClient) -> None:
    answer = broken.post("/segment", **raw(IMAGE))
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:unet-service:fault")


def test_a_fault_of_ours_says_nothing_of_the_inside(broken: TestClient) -> None:
    answer = broken.post("/segment", **raw(IMAGE))
    told = answer.text + json.dumps(dict(answer.headers))
    assert not any(word in told for word in (SECRET, "RuntimeError", "Traceback", ".py"))


def test_the_log_has_the_reason_of_a_fault_under_its_request_id(
    broken: TestClient, log: Log
) -> None:
    request_id = broken.post("/segment", **raw(IMAGE)).json()["request_id"]
    reason, request = log.lines()
    assert reason["request_id"] == request["request_id"] == request_id
    assert reason["exception"].endswith(f"RuntimeError: {SECRET}")
    assert (request["status"], request["problem"]) == (500, "fault")


def test_a_good_request_is_answered_after_a_fault_of_ours(broken: TestClient) -> None:
    broken.post("/segment", **raw(IMAGE))
    assert broken.post("/segment", **raw(IMAGE, format="json")).status_code == 200


@pytest.fixture
def failing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Give a client of a service whose model fails."""

    def fail(*_: object) -> None:
        raise InferenceFailed(SECRET)

    monkeypatch.setattr(Runtime, "labels", fail)
    return client


def test_a_model_that_fails_is_a_problem_with_status_500(failing: TestClient) -> None:
    answer = failing.post("/segment", **raw(IMAGE))
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:unet-service:inference-failed")
    assert SECRET not in answer.text


def test_the_log_has_the_reason_of_a_failed_model_under_the_request_id(
    failing: TestClient, log: Log
) -> None:
    request_id = failing.post("/segment", **raw(IMAGE)).json()["request_id"]
    (reason,) = [line for line in log.lines() if line["logger"] == "service.errors"]
    assert reason["request_id"] == request_id
    assert f"InferenceFailed: {SECRET}" in reason["exception"]
