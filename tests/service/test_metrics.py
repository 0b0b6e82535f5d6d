"""The metrics: each moves with a request of its kind, and none grows without bound."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from model.geometry import flops
from model.planner import TileShapes
from model.runtime import Runtime
from model.sessions.gpu_memory import GpuMemory
from service import metrics
from service.app import create_app
from service.decoding.pool import Decoders
from service.models.models import Models
from service.request_scope import OTHER_ROUTE
from service.settings import Settings
from tests.service.conftest import TILE_EDGE, TINY, TestClient, models_of, noise, png

SHAPE = (400, 401)
IMAGE, PIXELS = png(noise(*SHAPE)), 400 * 401
TILES = 4
TILE_WORK = flops(TINY, (TILE_EDGE, TILE_EDGE))
STAGES = {"upload", "decode", "queue", "inference", "decide", "encode"}
CRASHES = (
    sys.executable,
    "-c",
    "import socket; parent = socket.socket(fileno=0); parent.sendall(b'\\n'); parent.recv(1)",
)
"""A child that ends over every image."""


class FakeRuntime(Runtime):
    """Gives zeros at once, unless it is told otherwise."""

    def __init__(self, opened: Runtime) -> None:
        self.__dict__ |= opened.__dict__
        self.before_run: Callable[[], object] = lambda: None

    def warm_up(self, tile_shape: tuple[int, int], batch: int = 1) -> None:
        """There is nothing to prepare."""

    def run(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        self.before_run()
        count, _, *edges = tiles.shape
        inner = [edge - 2 * self.manifest.geometry.halo for edge in edges]
        return np.zeros((count, self.manifest.architecture.num_classes, *inner), np.float32)

    def labels(self, tiles: NDArray[np.float32]) -> NDArray[np.uint8]:
        return self.run(tiles)[:, 0].astype(np.uint8)


class Page:
    """One scrape."""

    def __init__(self, client: TestClient) -> None:
        self.text = client.get("/metrics").text
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def __call__(self, name: str, /, **labels: str) -> float:
        """Give a number; what was never counted is 0."""
        return self.samples.get((f"unet_{name}", frozenset(labels.items())), 0.0)

    def values_of(self, label: str, metric: str = "") -> set[str]:
        """Give every value that a label has, in one metric or in all."""
        found = [dict(labels) for name, labels in self.samples if name.startswith(metric)]
        return {labels[label] for labels in found if label in labels}

    def ours(self) -> dict[Any, float]:
        """Give what one application counts of itself; the process is shared."""
        return {key: value for key, value in self.samples.items() if key[0].startswith("unet_")}


class Service:
    """A service over a fake runtime."""

    def __init__(self, client: TestClient, models: Models, runtime: FakeRuntime) -> None:
        self.client = client
        self.models = models
        self.runtime = runtime

    def page(self) -> Page:
        return Page(self.client)

    def segment(self, body: bytes = IMAGE, **query: str) -> int:
        headers = {"content-type": "image/png"}
        answer = self.client.post("/segment", params=query, content=body, headers=headers)
        return int(answer.status_code)

    @contextmanager
    def in_its_first_tile(self) -> Iterator[Future[int]]:
        """Hold a request while its first tile is run; give what will be its status."""
        runs, may_go_on = threading.Event(), threading.Event()

        def hold() -> None:
            runs.set()
            may_go_on.wait(10)

        self.runtime.before_run = hold
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.segment)
            try:
                assert runs.wait(10)
                yield answer
            finally:
                self.runtime.before_run = lambda: None
                may_go_on.set()

    @contextmanager
    def failing(self, error: Exception) -> Iterator[None]:
        def fail() -> None:
            raise error

        self.runtime.before_run = fail
        try:
            yield
        finally:
            self.runtime.before_run = lambda: None


@contextmanager
def serving(settings: Settings, runtime: Runtime) -> Iterator[Service]:
    fake = FakeRuntime(runtime)
    models = models_of(fake)
    with TestClient(create_app(settings, models)) as client:
        yield Service(client, models, fake)


@pytest.fixture(scope="module")
def service(settings: Settings, runtime: Runtime) -> Iterator[Service]:
    with serving(settings, runtime) as service:
        yield service


def moved(service: Service, name: str, act: Callable[[], object], **labels: str) -> float:
    """Say by how much a number moves."""
    before = service.page()(name, **labels)
    act()
    return service.page()(name, **labels) - before


def test_the_page_is_in_the_text_format_of_prometheus(service: Service) -> None:
    answer = service.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_all_of_our_metrics_are_named_after_us(service: Service) -> None:
    names = {name for name, _ in service.page().samples}
    assert {name.split("_")[0] for name in names} == {"unet", "process", "python"}


@pytest.mark.parametrize(
    "name", ["process_cpu_seconds_total", "process_open_fds", "python_gc_collections_total"]
)
def test_the_process_is_measured(service: Service, name: str) -> None:
    assert any(name == found for found, _ in service.page().samples)


def test_a_request_that_was_answered_is_counted_by_its_route(service: Service) -> None:
    labels = {"route": "/segment", "status": "200", "problem": ""}
    assert moved(service, "requests_total", service.segment, **labels) == 1


def test_a_request_that_was_refused_is_counted_by_its_problem(service: Service) -> None:
    labels = {"route": "/segment", "status": "400", "problem": "image-unreadable"}
    assert moved(service, "requests_total", lambda: service.segment(b"hello"), **labels) == 1


def test_a_path_that_is_no_route_is_counted(service: Service) -> None:
    labels = {"route": OTHER_ROUTE, "status": "404", "problem": "not-found"}
    assert moved(service, "requests_total", lambda: service.client.get("/x/y"), **labels) == 1


def test_a_wrong_method_is_counted_at_its_route(service: Service) -> None:
    labels = {"route": "/models", "status": "405", "problem": "method-not-allowed"}
    assert moved(service, "requests_total", lambda: service.client.put("/models"), **labels) == 1


def test_a_fault_of_ours_is_counted(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.masks.encode_png", None)
    labels = {"route": "/segment", "status": "500", "problem": "fault"}
    assert moved(service, "requests_total", service.segment, **labels) == 1


def test_every_stage_of_an_image_is_measured_by_its_model(service: Service) -> None:
    before = service.page()
    service.segment()
    after = service.page()
    for stage in STAGES:
        name, labels = "stage_seconds_count", {"stage": stage, "model": "tiny"}
        assert after(name, **labels) - before(name, **labels) == 1, stage
    assert after.values_of("stage") == STAGES


def test_the_buckets_of_the_stages_go_from_a_millisecond_to_ten_minutes(service: Service) -> None:
    service.segment()
    buckets = sorted(float(edge) for edge in service.page().values_of("le", "unet_stage_seconds"))
    assert (buckets[0], buckets[-2], buckets[-1]) == (0.001, 600, float("inf"))


def test_the_stages_of_a_refused_image_are_not_mixed_with_those_of_answers(
    service: Service,
) -> None:
    labels = {"stage": "upload", "model": "tiny"}
    act = partial(service.segment, b"hello")
    assert moved(service, "stage_seconds_count", act, **labels) == 0


def test_what_waits_is_seen_while_it_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    for timed in (service.models.engine, service.models.engine._queue):
        monkeypatch.setattr(timed, "_clock", lambda: now)
    with service.in_its_first_tile() as answer:
        now = 107.5
        page = service.page()
        waiting = [page(f"queue_{name}") for name in ("images", "flop", "oldest_seconds")]
        held = [page(f"{name}_held") for name in ("requests", "pixels")]
    assert answer.result() == 200
    assert waiting == [1, (TILES - 1) * TILE_WORK, 7.5]
    assert held == [1, PIXELS]


def test_nothing_waits_and_nothing_is_held_after_it(service: Service) -> None:
    service.segment()
    page = service.page()
    names = ["queue_images", "queue_flop", "queue_oldest_seconds", "requests_held", "pixels_held"]
    assert [page(name) for name in names] == [0] * 5


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("tiles_total", TILES),
        ("turn_tiles_count", TILES),
        ("turn_tiles_sum", TILES),
        ("input_pixels_total", TILES * TILE_EDGE**2),
        ("output_pixels_total", PIXELS),
    ],
)
def test_tiles_are_counted_by_their_model(service: Service, name: str, by: int) -> None:
    assert moved(service, name, service.segment, model="tiny") == by


def test_a_batch_falls_into_the_bucket_of_its_size(service: Service) -> None:
    assert moved(service, "turn_tiles_bucket", service.segment, model="tiny", le="1.0") == TILES


@pytest.mark.parametrize(
    ("error", "name", "other"),
    [
        (RuntimeError("broken"), "turns_failed_total", "turns_out_of_memory_total"),
        (MemoryError(), "turns_out_of_memory_total", "turns_failed_total"),
    ],
)
def test_turns_that_fail_are_counted_by_their_reason(
    service: Service, error: Exception, name: str, other: str
) -> None:
    before = service.page()
    with service.failing(error):
        assert service.segment() == 500
    after = service.page()
    assert after(name, model="tiny") - before(name, model="tiny") == 1
    for same in (other, "tiles_total"):
        assert after(same, model="tiny") == before(same, model="tiny")
    assert service.segment() == 200


def test_a_decoder_that_is_given_up_is_counted(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.Decoders", partial(Decoders, command=CRASHES))
    with serving(settings, runtime) as service:
        assert moved(service, "decoders_given_up_total", lambda: service.segment(b"hello")) == 0
        assert moved(service, "decoders_given_up_total", service.segment) == 1


def test_devices_that_take_turns_are_counted(service: Service) -> None:
    assert service.page()("devices") == 1


def test_a_model_has_one_line_that_says_its_state(service: Service, runtime: Runtime) -> None:
    labels = {
        "name": "tiny",
        "sha256": runtime.artefact.sha256,
        "provider": "cpu",
        "device": "cpu",
        "precision": "fp32",
    }
    page = service.page()
    assert page("model_info", **labels, state="ready") == 1
    assert page.values_of("state") == {"ready"}
    service.models.loaded["tiny"].state = "failed"
    failed = service.page()
    service.models.loaded["tiny"].state = "ready"
    assert failed("model_info", **labels, state="failed") == 1
    assert failed.values_of("state") == {"failed"}


def test_every_model_is_counted_from_zero(settings: Settings, runtime: Runtime) -> None:
    with serving(settings, runtime) as service:
        samples = service.page().samples
    model = frozenset({("model", "tiny")})
    assert [samples[f"unet_{name}_total", model] for name in ("tiles", "turns_failed")] == [0, 0]


def test_two_applications_in_one_process_share_no_number(
    service: Service, settings: Settings, runtime: Runtime
) -> None:
    with serving(settings, runtime) as other:
        other.page()  # from then on, scrapes are counted
        before = other.page().ours()
        service.segment()
        after = other.page().ours()
    by_scraping = {"route": "/metrics", "status": "200", "problem": ""}
    scrapes = "unet_requests_total", frozenset(by_scraping.items())
    assert {key for key in after if after[key] != before.get(key)} == {scrapes}


def test_scrapes_and_turns_do_not_wait_for_each_other_for_ever(service: Service) -> None:
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(service.segment) for _ in range(4)]
        pages = [service.page()]
        while not all(answer.done() for answer in answers):
            pages.append(service.page())
    assert [answer.result() for answer in answers] == [200] * 4
    tiles = [page("tiles_total", model="tiny") for page in [*pages, service.page()]]
    assert tiles == sorted(tiles)
    assert tiles[-1] - tiles[0] <= 4 * TILES


def odd_requests(client: TestClient, odd: str) -> None:
    """Put a word wherever a client may put one."""
    headers = {"content-type": f"image/{odd}", "x-request-id": odd, "accept": odd}
    for path in ("", "segment/", "models/", "metrics/", "static-offline-docs/"):
        client.get(f"/{path}{odd}")
        client.request(odd.upper(), f"/{path}{odd}", headers=headers)
    client.request(odd.upper(), "/segment", headers=headers)
    for name in ("model", "output", "average", "format", odd):
        client.post("/segment", params={name: odd}, content=IMAGE, headers=headers)
    client.post("/segment", files={odd: (odd, IMAGE, f"image/{odd}")})


def test_no_label_takes_a_value_that_a_client_makes_up(service: Service) -> None:
    odd_requests(service.client, "quince")
    first = service.page()
    odd_requests(service.client, "medlar")
    second = service.page()
    assert set(first.samples) == set(second.samples)
    assert not any(word in second.text.lower() for word in ("quince", "medlar"))
    assert second.values_of("route") <= {
        *("/segment", "/models", "/healthz", "/readyz", "/metrics", "/docs", "/", OTHER_ROUTE)
    }
    assert second.values_of("model") == {"tiny"}


def test_the_memory_of_open_models_is_what_their_bound_weighs(service: Service) -> None:
    assert service.page()("model_memory_bytes", name="tiny") == (
        service.models.loaded["tiny"].memory_bytes
    )


def test_the_largest_tile_of_a_model_is_what_it_is_asked_for_now(service: Service) -> None:
    model = service.models.loaded["tiny"]
    before = model.shapes
    pages = [service.page()]
    model.shapes = TileShapes(before.largest_area // 2, before.edges)
    pages.append(service.page())
    model.shapes = before
    assert [page("tile_pixels_max", model="tiny") for page in pages] == [
        *(TILE_EDGE**2, TILE_EDGE**2 // 2)
    ]


def test_the_memory_of_gpus_is_what_their_driver_says(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def driver(gpu: int) -> GpuMemory:
        asked.append(gpu)
        return GpuMemory(used_bytes=10, total_bytes=16)

    monkeypatch.setattr(metrics, "gpu_memory", driver)
    monkeypatch.setattr(FakeRuntime, "device", "cuda:3")
    page = service.page()
    assert asked == [3]
    assert page("gpu_memory_used_bytes", device="cuda:3") == 10
    assert page("gpu_memory_total_bytes", device="cuda:3") == 16


def test_a_gpu_whose_driver_says_nothing_has_no_memory_in_the_page(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def driver(_: int) -> GpuMemory:
        raise OSError("CUDA's driver refused cuInit: error 100")

    monkeypatch.setattr(metrics, "gpu_memory", driver)
    monkeypatch.setattr(FakeRuntime, "device", "cuda:0")
    assert service.page().values_of("device", "unet_gpu_memory") == set()


def test_without_a_gpu_no_driver_is_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(metrics, "gpu_memory", asked.append)
    assert service.page().values_of("device", "unet_gpu_memory") == set()
    assert asked == []
