"""What lives as long as the application, and how a route gets it."""

from dataclasses import dataclass

from fastapi import Request

from service.admission import Admission
from service.decoding.pool import Decoders
from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.models.models import Models
from service.settings import Settings
from service.slots import Slots
from service.stages import Stages


@dataclass(frozen=True, slots=True)
class State:
    """What all requests share."""

    settings: Settings
    models: Models
    admission: Admission
    lifecycle: Lifecycle
    metrics: Metrics
    decoders: Decoders
    slots: Slots
    """Of images that are prepared, decided or encoded."""


def state_of(request: Request) -> State:
    """Give a route the state of its application."""
    state: State = request.app.state.service
    return state


def stages_of(request: Request) -> Stages:
    """Give a route what measures its request."""
    stages: Stages = request.state.stages
    return stages
