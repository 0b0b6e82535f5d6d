"""Models that come and go, over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import TestClient, noise, png, serving, settings_of, write_artefact
from tests.service.models.shelf import Shelf
from tests.service.recording import EDGE

IMAGE = png(noise(20, 20))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Give a folder of one model, `cells`, in `1.onnx`, that is served."""
    shelf = Shelf(tmp_path)
    shelf.write("1", "cells")
    shelf.serve()
    return shelf


@contextmanager
def client_of(shelf: Shelf) -> Iterator[TestClient]:
    settings = Settings(reload_every_s=0, tile_edge=EDGE)
    with shelf.models(started=False) as models, TestClient(create_app(settings, models)) as client:
        yield client


def segment(client: TestClient, **query: str) -> Any:
    headers = {"content-type": "image/png"}
    return client.post("/segment", params=query, content=IMAGE, headers=headers)


def reload(client: TestClient) -> Any:
    answer = client.post("/models/reload")
    assert answer.status_code == 200, answer.text
    return answer.json()


def served(client: TestClient) -> dict[str, tuple[str, str]]:
    """Give digest and state of every model."""
    models = client.get("/models").json()["models"]
    return {each["name"]: (each["sha256"], each["state"]) for each in models}


def number(client: TestClient, name: str, **labels: str) -> float | None:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    found = [each.value for each in samples if (each.name, each.labels) == (name, labels)]
    return found[0] if found else None


def test_a_reload_tells_what_changed_and_answers_name_what_ran(shelf: Shelf) -> None:
    (old,) = shelf.digests().values()
    with client_of(shelf) as client:
        before = segment(client).headers["x-model-sha256"]
        new, other = shelf.write("1", "cells", version=2), shelf.write("2", "nuclei")
        told = reload(client)
        after = [segment(client, model=name).headers for name in ("cells", "nuclei")]
        assert served(client) == {"cells": (new, "ready"), "nuclei": (other, "ready")}
    assert told == {
        "changes": [
            {"change": "swapped", "name": "cells", "sha256": new},
            {"change": "added", "name": "nuclei", "sha256": other},
        ],
        "refused": [],
    }
    assert before == old
    assert [each["x-model-sha256"] for each in after] == [new, other]


def test_a_reload_when_nothing_changed_says_so(shelf: Shelf) -> None:
    with client_of(shelf) as client:
        assert reload(client) == {"changes": [], "refused": []}
    assert len(shelf.opened) == 1


def test_a_bad_file_is_named_with_its_reason_and_without_its_folder(shelf: Shelf) -> None:
    reason = {"file": "1.onnx", "code": "artefact-damaged", "detail": "1.onnx is damaged."}
    with client_of(shelf) as client:
        old = served(client)
        shelf.write("1", "cells", version=2, length=9)
        told = reload(client)
        listed = client.get("/models")
        assert served(client) == old
        assert (client.get("/readyz").status_code, segment(client).status_code) == (200, 200)
    change = {"change": "refused", "name": "1.onnx", "sha256": None}
    assert told == {"changes": [change], "refused": [reason]}
    assert listed.json()["refused"] == [reason]
    assert str(shelf.folder) not in listed.text


def test_a_device_that_hangs_is_named_and_makes_the_service_not_ready(shelf: Shelf) -> None:
    settings = Settings(reload_every_s=0, tile_edge=EDGE)
    with shelf.models(started=False) as models, TestClient(create_app(settings, models)) as client:
        models.engine.hanging = lambda: {1: 75.4}  # type: ignore[method-assign]  # a seam
        problem = client.get("/readyz")
    assert (problem.status_code, problem.json()["detail"]) == (
        503,
        "Device 1 hangs: its turn has taken 75 s.",
    )


def test_a_model_that_went_out_of_service_is_not_found(shelf: Shelf) -> None:
    with client_of(shelf) as client:
        shelf.write("2", "nuclei")
        shelf.remove("1")
        reload(client)
        gone, default = segment(client, model="cells"), segment(client)
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:unet-service:model-not-found")
    assert default.headers["x-model"] == "nuclei"


def test_an_empty_folder_is_a_problem_and_all_models_stay(shelf: Shelf) -> None:
    with client_of(shelf) as client:
        shelf.remove("1")
        answer = client.post("/models/reload")
        assert segment(client).status_code == 200
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:unet-service:artefact-not-found"
    assert str(shelf.folder) not in answer.text


def test_a_reload_is_refused_when_the_service_stops(shelf: Shelf) -> None:
    with client_of(shelf) as client:
        client.app.state.lifecycle.stopping = True  # type: ignore[attr-defined]  # any ASGI app
        answer = client.post("/models/reload")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:unet-service:service-stopping")


def test_a_reload_is_asked_for_by_post_alone(shelf: Shelf) -> None:
    with client_of(shelf) as client:
        assert client.get("/models/reload").status_code == 405


def test_a_model_that_was_let_go_answers_and_is_ready_meanwhile(shelf: Shelf) -> None:
    (digest,) = shelf.digests().values()
    shelf.let_go("cells")
    with client_of(shelf) as client:
        assert served(client) == {"cells": (digest, "unloaded")}
        (state,) = client.get("/readyz").json()["models"]
        answer = segment(client)
        assert served(client) == {"cells": (digest, "ready")}
    assert (state["state"], state["tile_shapes"]) == ("unloaded", [])
    assert (answer.status_code, answer.headers["x-model-sha256"]) == (200, digest)


def test_a_model_that_cannot_be_opened_again_asks_to_come_again(shelf: Shelf) -> None:
    shelf.let_go("cells")
    shelf.write("1", "cells", length=9)
    with client_of(shelf) as client:
        answer = segment(client)
    assert (answer.status_code, answer.json()["type"]) == (
        503,
        "urn:unet-service:service-not-ready",
    )
    assert "retry-after" in answer.headers
    assert "1.onnx is damaged." in answer.json()["detail"]


def test_changes_are_counted_by_their_kind(shelf: Shelf) -> None:
    kinds = ("added", "swapped", "removed", "refused", "unloaded", "loaded")
    with client_of(shelf) as client:
        before = [number(client, "unet_model_changes_total", change=kind) for kind in kinds]
        shelf.write("1", "cells", version=2)
        shelf.write("2", "nuclei")
        shelf.write("3", "bone", length=9)
        reload(client)
        after = [number(client, "unet_model_changes_total", change=kind) for kind in kinds]
        assert number(client, "unet_artefacts_refused") == 1
    assert before == [0] * 6
    assert after == [1, 1, 0, 1, 0, 0]


def test_a_model_that_comes_is_counted_and_one_that_went_is_forgotten(shelf: Shelf) -> None:
    names = "unet_tiles_total", "unet_turns_failed_total"
    with client_of(shelf) as client:
        segment(client)
        shelf.write("2", "nuclei")
        reload(client)
        came = [number(client, name, model="nuclei") for name in names]
        shelf.remove("1")
        reload(client)
        last = [number(client, name, model="cells") for name in names]
        page = client.get("/metrics").text
    assert came == [0, 0]
    assert last[0] is not None
    assert last[0] > 0
    assert 'model="cells"' not in page
    assert 'name="cells"' not in page


def test_a_real_artefact_is_refused_while_it_is_half_and_served_once_it_is_whole(
    tmp_path: Path,
) -> None:
    path = write_artefact(tmp_path)
    with serving(settings_of(tmp_path, reload_every_s=0)) as client:
        old = segment(client).headers["x-model-sha256"]
        write_artefact(tmp_path, decision_threshold=None, pixel_size=0.5)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        half = reload(client)
        during = segment(client).headers["x-model-sha256"]
        path.write_bytes(whole)
        full = reload(client)
        answer = segment(client, format="json").json()["model"]
    assert half["refused"][0]["code"] == "artefact-damaged"
    assert str(tmp_path) not in half["refused"][0]["detail"]
    assert during == old
    assert [each["change"] for each in full["changes"]] == ["swapped"]
    assert full["refused"] == []
    assert answer["sha256"] == full["changes"][0]["sha256"] != old


@pytest.mark.parametrize("every_s", [0.0, 5.0])
def test_the_folder_is_watched_unless_the_setting_is_0(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    pauses: list[float] = []

    async def watch(_: object, pause: Any) -> None:
        pauses.append(pause.args[0])

    monkeypatch.setattr("service.models.models.Models.watch", watch)
    with shelf.models(started=False) as models:
        app = create_app(Settings(reload_every_s=every_s), models)
        with TestClient(app) as client:
            client.get("/healthz")
    assert pauses == [every_s] * bool(every_s)
