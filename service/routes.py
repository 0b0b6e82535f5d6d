"""The interface: one function a route; `segment` and `answer` are the path of a request."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.requests import ClientDisconnect

from model.errors import FormInvalid
from model.segmentation import Segmentation
from service.engine import Engine
from service.images import decode, read_header
from service.masks import encode_png, encode_segments
from service.models import model_used
from service.negotiation import AnswerFormat, choose_format
from service.openapi import PROBLEMS, SEGMENT_BODY, SEGMENT_RESPONSES
from service.schemas import Alive, ModelList, Readiness, SegmentAnswer, SegmentQuery, Timings
from service.state import State, state_of
from service.upload import Upload, check_declared_format, read_upload

T = TypeVar("T")

Service = Annotated[State, Depends(state_of)]

router = APIRouter(responses=PROBLEMS)


@router.post(
    "/segment",
    summary="Segment an image",
    response_class=Response,
    responses=SEGMENT_RESPONSES,
    openapi_extra=SEGMENT_BODY,
)
async def segment(
    request: Request, service: Service, query: Annotated[SegmentQuery, Query()]
) -> Response:
    """Give the label map of an image of any size, at the same size.

    The image is the field `image` of a form, or the body itself: PNG, JPEG or TIFF of 8 or 16-bit
    integers or float32, grey or colour. Its EXIF orientation is applied before anything else.
    """
    service.lifecycle.refuse_when_stopping()
    engine = service.models.find(query.model)
    media_type = choose_format(query.format, request.headers.get("accept"))
    with service.admission.request():
        upload = await read_upload(
            request,
            max_upload_bytes=service.settings.max_upload_bytes,
            stall_timeout_s=service.settings.stall_timeout_s,
            timeout_s=service.settings.upload_timeout_s,
        )
        refuse_parameters_in_form(upload)
        return await unless_disconnected(request, answer(service, engine, upload, media_type))


async def answer(
    service: State, engine: Engine, upload: Upload, media_type: AnswerFormat
) -> Response:
    """Decode, segment and encode, each where it holds nobody up."""
    manifest = engine.runtime.manifest
    max_image_pixels = service.settings.max_image_pixels
    read = partial(read_header, max_image_pixels=max_image_pixels)
    header = await in_thread(service, read, upload.data)
    check_declared_format(upload, header.format)
    with service.admission.image(header.height * header.width):
        began = time.perf_counter()
        image = await in_thread(service, decode, upload.data, header)
        work = await in_thread(service, Segmentation.begin, image, manifest, engine.edges)
        decoded = time.perf_counter()
        segmented = await engine.segment(work)
        encode = encode_png if media_type is AnswerFormat.PNG else encode_segments
        encoding = time.perf_counter()
        content = await in_thread(service, encode, segmented.labels, manifest.classes)
        timings = Timings(
            decode_ms=1e3 * (decoded - began),
            queue_ms=1e3 * segmented.queue_s,
            inference_ms=1e3 * segmented.inference_s,
            encode_ms=1e3 * (time.perf_counter() - encoding),
        )
    if not isinstance(content, bytes):
        height, width = segmented.labels.shape
        described = SegmentAnswer(
            model=model_used(engine.runtime),
            size=(height, width),
            segments=content,
            timings=timings,
        )
        content = await in_thread(service, partial(described.model_dump_json, by_alias=True))
    return Response(content, media_type=media_type, headers=answer_headers(engine, timings))


@router.head("/models", include_in_schema=False)
@router.get("/models", summary="List the models that are served")
async def models(service: Service) -> ModelList:
    """Give every model's manifest: classes, scores, data and terms."""
    return ModelList(models=service.models.served())


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Alive?")
async def healthz() -> Alive:
    """Answer as long as the process does."""
    return Alive()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Ready?")
async def readyz(service: Service) -> Readiness:
    """Answer 200 once every model is verified and warmed up, and the service is not stopping."""
    service.lifecycle.refuse_when_stopping()
    return Readiness(models=service.models.ready_states())


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


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """Do the work while the client waits for it; give it up when the client leaves.

    Work in a thread cannot be given up. A scope, unlike the cancellation of a task, waits for it,
    so what the request holds is free when this returns.

    Raises:
        ClientDisconnect: if it leaves.
    """
    with anyio.CancelScope() as scope:
        watch = asyncio.ensure_future(cancel_when_disconnected(request, scope))
        try:
            return await work
        finally:
            watch.cancel()
    raise ClientDisconnect


async def cancel_when_disconnected(request: Request, scope: anyio.CancelScope) -> None:
    """Wait until the client leaves. Its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def in_thread(service: State, function: Callable[..., T], *arguments: Any) -> T:
    """Run what takes long over an image off the event loop, as many at a time as allowed."""
    return await anyio.to_thread.run_sync(function, *arguments, limiter=service.pixel_threads)


def answer_headers(engine: Engine, timings: Timings) -> dict[str, str]:
    """Say which model answered, and where the time went (in ms)."""
    parts = timings.model_dump().items()
    return {
        "Server-Timing": ", ".join(
            f"{name.removesuffix('_ms')};dur={value:.1f}" for name, value in parts
        ),
        "X-Model": engine.runtime.manifest.name,
        "X-Model-SHA256": engine.runtime.artefact.sha256,
        "X-Model-Provider": engine.runtime.provider,
    }
