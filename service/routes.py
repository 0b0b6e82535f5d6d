"""The interface: one function a route; `segment` and `answer` are the path of a request."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
import anyio.lowlevel
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.requests import ClientDisconnect

from model import averaging
from model.artefact import Averaging
from model.errors import DeadlinePassed, FormInvalid
from model.segmentation import Wanted, output_for
from service.admission import Place
from service.deadline import asked_wait_s
from service.estimate import Demand
from service.images import ImageHeader, read_header
from service.masks import Found, encode
from service.metrics import MEDIA_TYPE
from service.models.loaded import Loaded
from service.models.models import model_used
from service.negotiation import AnswerFormat, choose_format
from service.openapi import PROBLEMS, SEGMENT_BODY, SEGMENT_RESPONSES
from service.schemas import (
    Alive,
    ModelList,
    Readiness,
    Reloaded,
    SegmentAnswer,
    SegmentQuery,
    Timings,
)
from service.stages import Stages
from service.state import State, stages_of, state_of
from service.upload import Upload, check_declared_format, read_upload

T = TypeVar("T")

Service = Annotated[State, Depends(state_of)]
Measured = Annotated[Stages, Depends(stages_of)]

router = APIRouter(responses=PROBLEMS)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    output: Wanted
    averaging: Averaging
    media_type: AnswerFormat
    deadline: float
    """When the answer is to be there, on `time.monotonic`, in s."""


@router.post(
    "/segment",
    summary="Segment an image",
    response_class=Response,
    responses=SEGMENT_RESPONSES,
    openapi_extra=SEGMENT_BODY,
)
async def segment(
    request: Request, service: Service, stages: Measured, query: Annotated[SegmentQuery, Query()]
) -> Response:
    """Give the label map of an image of any size, at the same size, or the objects in it.

    The image is the field `image` of a form, or the body itself: PNG, JPEG or TIFF of 8 or 16-bit
    integers or float32, grey or colour; of a TIFF, each sample of a pixel that is no opacity is a
    channel, and there may be 64. Its EXIF orientation is applied before anything else.
    """
    service.lifecycle.refuse_when_stopping()
    stages.model = service.models.find(query.model).name
    media_type = choose_format(query.format, request.headers.get("accept"))
    wait_s = asked_wait_s(",".join(request.headers.getlist("prefer")))
    deadline = stages.came + min(wait_s, service.settings.deadline_s)
    with service.admission.request():
        with stages.measure("upload"):
            upload = await read_upload(
                request,
                max_upload_bytes=service.settings.max_upload_bytes,
                stall_timeout_s=service.settings.stall_timeout_s,
                timeout_s=min(service.settings.upload_timeout_s, deadline - time.monotonic()),
            )
        refuse_parameters_in_form(upload)
        work = answer_by_model(service, upload, query, media_type, deadline, stages)
        return await while_awaited(request, work, deadline)


async def answer_by_model(
    service: State,
    upload: Upload,
    query: SegmentQuery,
    media_type: AnswerFormat,
    deadline: float,
    stages: Stages,
) -> Response:
    """Hold the model that is served by now until the answer is made."""
    async with service.models.use(stages.model) as model:
        averaging = query.average or model.manifest.averaging
        asked = Asked(query.output, averaging, media_type, deadline)
        return await answer(service, model, upload, asked, stages)


async def answer(
    service: State, model: Loaded, upload: Upload, asked: Asked, stages: Stages
) -> Response:
    """Find what is asked for in an image, and encode it."""
    read = partial(read_header, max_image_pixels=service.settings.max_image_pixels)
    with stages.measure("decode"):
        header = await anyio.to_thread.run_sync(read, upload.data)
        check_declared_format(upload, header.format)
        demand = await anyio.to_thread.run_sync(Demand.of, model, header, asked.averaging)
    with service.admission.image(demand, asked.deadline) as place:
        found, device = await find(service, model, upload.data, header, asked, stages, place)
        classes = model.manifest.classes
        with stages.measure("encode"):
            content = await in_thread(
                service, header, stages, encode, found, classes, asked.media_type
            )
    headers = answer_headers(model, device, asked)
    if isinstance(content, bytes):
        return Response(content, media_type=asked.media_type, headers=headers)
    height, width = found.shape
    described = SegmentAnswer(
        model=model_used(model, device),
        output=asked.output,
        averaging=asked.averaging,
        size=(height, width),
        segments=content,
        timings=Timings(**{f"{name}_ms": 1e3 * s for name, s in stages.seconds.items()}),
    )
    text = await in_thread(
        service, header, stages, partial(described.model_dump_json, by_alias=True)
    )
    return Response(text, media_type=asked.media_type, headers=headers)


async def find(
    service: State,
    model: Loaded,
    data: bytes,
    header: ImageHeader,
    asked: Asked,
    stages: Stages,
    place: Place,
) -> tuple[Found, str]:
    """Decode, segment and decide, each where it holds nobody up.

    The image and the model's maps are let go with this: encoding needs neither.

    Returns:
        What was found, and the devices that ran its tiles.
    """
    manifest = model.manifest
    output = output_for(asked.output, manifest, asked.averaging)
    prepare = partial(averaging.begin, averaging=asked.averaging, output=output)
    with stages.measure("decode"):
        image = await service.decoders.decode(data, header, stages.queued)
        passes = await in_thread(service, header, stages, prepare, image, manifest, model.shapes)
    segmented = await service.models.engine.segment(
        model, *passes, deadline=asked.deadline, queued=place.join
    )
    stages.queued(segmented.queue_s)
    stages.add("inference", segmented.inference_s)
    work = segmented.work
    with stages.measure("decide"):
        found: Found = await in_thread(
            service, header, stages, work.labels if asked.output == "labels" else work.objects
        )
    return found, segmented.device


@router.head("/models", include_in_schema=False)
@router.get("/models", summary="List the models that are served")
async def models(service: Service) -> ModelList:
    """Give every model's manifest: classes, scores, data and terms; and what is not served."""
    return ModelList(models=service.models.served(), refused=service.models.refused())


@router.post("/models/reload", summary="Look for new models")
async def reload(service: Service) -> Reloaded:
    """Look at the folder of models now, and answer when it is served as it is.

    A new or changed file is verified, opened and warmed up before it takes a model's place; one
    that is bad takes none. Where nothing changed, no file is read.
    """
    service.lifecycle.refuse_when_stopping()
    changes = await service.models.reload()
    return Reloaded(
        changes=[change.described() for change in changes], refused=service.models.refused()
    )


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Alive?")
async def healthz() -> Alive:
    """Answer as long as the process does."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Ready?")
async def readyz(service: Service) -> Readiness:
    """Answer 200 once every model is warmed up, while no device hangs and the service stays."""
    service.lifecycle.refuse_when_stopping()
    return Readiness(models=service.models.ready_states())


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", summary="Requests, stages, turns", response_class=PlainTextResponse)
def metrics(service: Service) -> Response:
    """Give what the service counts, in Prometheus' text format."""
    return Response(service.metrics.page(), media_type=MEDIA_TYPE)


@router.get("/", include_in_schema=False)
async def index() -> RedirectResponse:
    """Lead to the documentation."""
    return RedirectResponse("/docs")


def refuse_parameters_in_form(upload: Upload) -> None:
    """Refuse a form whose sender believes that it is asked what the query is asked.

    Raises:
        FormInvalid: naming the field and where it belongs.
    """
    for name in SegmentQuery.model_fields:
        if name in upload.fields:
            raise FormInvalid(
                f"The form has a field {name!r}; it belongs in the query: /segment?{name}=…"
            )


async def while_awaited(
    request: Request, work: Coroutine[Any, Any, Response], deadline: float
) -> Response:
    """Do the work while somebody waits for it; give it up when the client leaves, or the deadline.

    Work in a thread cannot be given up, decoding and tiles can. A scope, unlike the cancellation
    of a task, waits for what cannot, so what the request holds is free when this returns.

    Args:
        request: Its body must have been read.
        work: What gives the answer.
        deadline: On the event loop's clock, in s.

    Raises:
        ClientDisconnect: if the client leaves.
        DeadlinePassed: if the deadline passes.
    """
    with anyio.CancelScope(deadline=deadline) as scope:
        watch = asyncio.ensure_future(cancel_when_disconnected(request, scope))
        try:
            response = await work
            await anyio.lowlevel.checkpoint_if_cancelled()  # the end of a thread is no checkpoint
            return response
        finally:
            has_left = watch.done()
            watch.cancel()
    if has_left:
        raise ClientDisconnect
    raise DeadlinePassed("The answer was not there when the request's deadline passed.")


async def cancel_when_disconnected(request: Request, scope: anyio.CancelScope) -> None:
    """Wait until the client leaves. Its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def in_thread(
    service: State, header: ImageHeader, stages: Stages, function: Callable[..., T], *arguments: Any
) -> T:
    """Run what takes long over an image off the event loop, once it is the image's turn."""
    async with service.slots.take(header.pixels, stages.queued):
        return await anyio.to_thread.run_sync(function, *arguments)


def answer_headers(model: Loaded, device: str, asked: Asked) -> dict[str, str]:
    """Say which model answered what, and where."""
    return {
        "X-Model": model.manifest.name,
        "X-Model-SHA256": model.artefact.sha256,
        "X-Model-Provider": model.provider,
        "X-Model-Device": device,
        "X-Model-Precision": model.precision,
        "X-Output": asked.output,
        "X-Averaging": asked.averaging,
    }
