"""What is counted and measured, in the words of Prometheus: one registry an application."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from model.sessions.gpu_memory import gpu_memory
from service.admission import Admission
from service.decoding.pool import Decoders
from service.models.models import Models
from service.models.served import Change
from service.schemas import ChangeKind
from service.slots import Slots
from service.stages import Stages
from service.turn import TurnReport

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

STAGE_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
TILE_BUCKETS = (1, 2, 4, 8, 16)

log = logging.getLogger(__name__)


class Metrics:
    """The numbers of one application. No label takes a value that a client can make up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(self._registry)
        counter = partial(Counter, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry)
        self._requests = counter(
            "unet_requests",
            "Requests by route, status and the code of their problem; 0 where no answer was sent.",
            ["route", "status", "problem"],
        )
        self._stages = histogram(
            "unet_stage_seconds",
            "Time of the stages of requests that had no problem.",
            ["stage", "model"],
            buckets=STAGE_BUCKETS_S,
        )
        self._turn_tiles = histogram(
            "unet_turn_tiles", "Tiles run together in a turn.", ["model"], buckets=TILE_BUCKETS
        )
        self._tiles = counter("unet_tiles", "Tiles that were run.", ["model"])
        self._input_pixels = counter(
            "unet_input_pixels", "Pixels that tiles read, halos included.", ["model"]
        )
        self._output_pixels = counter("unet_output_pixels", "Pixels that tiles wrote.", ["model"])
        self._failed = {
            "failed": counter(
                "unet_turns_failed", "Turns that failed, but not for want of memory.", ["model"]
            ),
            "out-of-memory": counter(
                "unet_turns_out_of_memory", "Turns that ran out of memory.", ["model"]
            ),
        }

        self._changes = counter(
            "unet_model_changes",
            "What came of files in the folder of models, and of models that were let go.",
            ["change"],
        )
        for kind in get_args(ChangeKind):
            self._changes.labels(kind)
        self._models: Models | None = None
        self._names: set[str] = set()
        """Of all models that were ever served."""

    def watch(self, models: Models, admission: Admission, decoders: Decoders, slots: Slots) -> None:
        """Read these whenever somebody asks; count from 0 for every model."""
        self._registry.register(_Watched(models, admission, decoders, slots))
        self._models = models
        self._names |= set(models.catalogue.served)

    def page(self) -> bytes:
        """Give all numbers in Prometheus' text format.

        Those of a model that is served no more are given once more, and then forgotten.
        """
        names = set(self._names)
        gone = names - set(self._models.catalogue.served) if self._models else set()
        sums = (self._tiles, self._input_pixels, self._output_pixels, *self._failed.values())
        for name, metric in product(names - gone, sums):
            metric.labels(name)
        text = generate_latest(self._registry)
        for name, labelled in product(gone, (self._stages, self._turn_tiles, *sums)):
            labelled.remove_by_labels({"model": name})
        return text

    def count_change(self, change: Change) -> None:
        """Count what came of a file, or of a model that was let go."""
        self._changes.labels(change.kind).inc()
        if change.kind == "added":
            self._names.add(change.name)

    def count_request(self, route: str, status: int, problem: str, stages: Stages) -> None:
        """Count a request that is over; its stages, if they led to what was asked for."""
        self._requests.labels(route, status, problem).inc()
        if not problem:
            for stage, seconds in stages.seconds.items():
                self._stages.labels(stage, stages.model).observe(seconds)

    def observe_turn(self, turn: TurnReport) -> None:
        """Count a turn of a device."""
        if turn.outcome != "done":
            self._failed[turn.outcome].labels(turn.model).inc()
            return
        self._turn_tiles.labels(turn.model).observe(turn.tiles)
        self._tiles.labels(turn.model).inc(turn.tiles)
        self._input_pixels.labels(turn.model).inc(turn.input_pixels)
        self._output_pixels.labels(turn.model).inc(turn.output_pixels)


@dataclass(frozen=True, slots=True)
class _Watched(Collector):
    """What is not counted here but read where it is known."""

    models: Models
    admission: Admission
    decoders: Decoders
    slots: Slots

    def collect(self) -> Iterator[Metric]:
        backlog = self.models.engine.backlog()
        gauge = GaugeMetricFamily
        yield gauge("unet_queue_images", "Images that wait for turns.", backlog.images)
        yield gauge(
            "unet_queue_flop", "Floating-point operations of the tiles that wait.", backlog.work
        )
        yield gauge(
            "unet_queue_oldest_seconds",
            "Time since the oldest image came that waits or has its turn.",
            backlog.oldest_age_s,
        )
        yield gauge("unet_devices", "Devices that take turns.", self.models.engine.devices)
        yield gauge("unet_requests_held", "Requests that are held.", self.admission.requests)
        yield gauge(
            "unet_pixels_held",
            "Pixels of the images that are held, as often as each is segmented.",
            self.admission.pixels,
        )
        yield self._images_waiting()
        yield CounterMetricFamily(
            "unet_decoders_given_up",
            "Processes that were given up over an image.",
            self.decoders.given_up,
        )
        yield gauge(
            "unet_artefacts_refused",
            "Files in the folder of models that are not served.",
            len(self.models.catalogue.refused),
        )
        yield self._model_info()
        yield self._model_memory()
        yield self._model_tiles()
        yield from self._gpu_memory()

    def _images_waiting(self) -> Metric:
        text = "Images that wait for a decoder, and for a thread before and after their tiles."
        waiting = GaugeMetricFamily("unet_images_waiting", text, labels=["for"])
        waiting.add_metric(["decoder"], self.decoders.waiting)
        waiting.add_metric(["thread"], self.slots.waiting)
        return waiting

    def _model_info(self) -> Metric:
        names = ["name", "sha256", "provider", "device", "precision", "state"]
        info = GaugeMetricFamily("unet_model_info", "The models that are served.", labels=names)
        for model in self.models.served():
            ran = [each or "" for each in (model.provider, model.device, model.precision)]
            info.add_metric([model.name, model.sha256, *ran, model.state], 1)
        return info

    def _model_memory(self) -> Metric:
        text = "Memory of the models that are open, on each device, as estimated from their tiles."
        memory = GaugeMetricFamily("unet_model_memory_bytes", text, labels=["name"])
        for name, loaded in self.models.loaded.items():
            memory.add_metric([name], loaded.memory_bytes)
        return memory

    def _model_tiles(self) -> Metric:
        text = "Pixels that a tile may read; less than at first after memory ran out."
        pixels = GaugeMetricFamily("unet_tile_pixels_max", text, labels=["model"])
        for name, loaded in self.models.loaded.items():
            pixels.add_metric([name], loaded.shapes.largest_area)
        return pixels

    def _gpu_memory(self) -> Iterator[Metric]:
        """Ask the driver; what it does not say is left out."""
        used = GaugeMetricFamily(
            "unet_gpu_memory_used_bytes",
            "Memory of a GPU that is not free, whoever uses it.",
            labels=["device"],
        )
        total = GaugeMetricFamily(
            "unet_gpu_memory_total_bytes", "Memory of a GPU.", labels=["device"]
        )
        for device in self.models.gpus():
            try:
                memory = gpu_memory(int(device.removeprefix("cuda:")))
            except OSError:
                log.warning("the memory of %s is not known", device, exc_info=True)
                continue
            used.add_metric([device], memory.used_bytes)
            total.add_metric([device], memory.total_bytes)
        yield used
        yield total
