"""What surrounds every request: its id, its time, and how its end is counted."""

import asyncio
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import masks
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.request_scope import RequestScope
from tests.service.conftest import TestClient, noise, png

IMAGE = png(noise(20, 30))
PATHS = ["/models", "/healthz", "/readyz", "/metrics", "/docs", "/", "/nowhere", "/segment"]


@pytest.mark.parametrize("asked", ["a", "7", "Az09._-", "...", "x" * 64])
def test_the_id_of_a_request_is_taken_over(client: TestClient, asked: str) -> None:
    answer = client.get("/nowhere", headers={"x-request-id": asked})
    assert answer.headers["x-request-id"] == asked
    assert answer.json()["request_id"] == asked


@pytest.mark.parametrize("asked", ["", "x" * 65, "a b", "a\tb", 'a"b', "a/b", "a,b", b"\xe9", "{}"])
def test_an_id_that_could_do_harm_is_replaced(client: TestClient, asked: str) -> None:
    answer = client.get("/nowhere", headers={"x-request-id": asked})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_request_without_an_id_gets_one_of_its_own(client: TestClient) -> None:
    ids = {client.get("/healthz").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2


def stages_of(answer: Any) -> list[str]:
    return re.findall(r"(\w+);dur=\d+\.\d", answer.headers["server-timing"])


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_says_how_long_it_took(client: TestClient, path: str) -> None:
    assert stages_of(client.get(path, follow_redirects=False)) == ["total"]


def test_a_refused_image_says_where_its_time_went_until_then(client: TestClient) -> None:
    headers = {"content-type": "image/png"}
    answer = client.post("/segment", content=b"hello", headers=headers)
    assert stages_of(answer) == ["upload", "decode", "total"]


def test_a_fault_of_ours_says_where_the_time_went_until_then(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "encode_png", None)
    answer = client.post("/segment", content=IMAGE, headers={"content-type": "image/png"})
    assert answer.status_code == 500
    assert stages_of(answer)[-2:] == ["encode", "total"]


def outcome_of(app: ASGIApp, lifecycle: Lifecycle) -> dict[str, str]:
    """Let an application handle one request; say how it is counted."""
    metrics = Metrics()

    async def handle() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await RequestScope(app, lifecycle, metrics)(scope, nothing, ignore)

    asyncio.run(handle())
    (labels,) = [
        sample.labels
        for family in text_string_to_metric_families(metrics.page().decode())
        for sample in family.samples
        if sample.name == "unet_requests_total"
    ]
    return labels


async def nothing() -> Message:
    raise AssertionError


async def ignore(message: Message) -> None:
    """Send it nowhere."""


async def is_left(scope: Scope, receive: Receive, send: Send) -> None:
    raise ClientDisconnect


async def is_cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


def test_a_client_that_left_is_counted_as_such() -> None:
    counted = outcome_of(is_left, Lifecycle())
    assert counted == {"route": "other", "status": "0", "problem": "client-left"}


def test_a_request_that_the_end_cuts_short_is_counted_as_such() -> None:
    lifecycle = Lifecycle()
    lifecycle.stopping = True
    counted = outcome_of(is_cancelled, lifecycle)
    assert counted == {"route": "other", "status": "503", "problem": "service-stopping"}
