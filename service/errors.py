"""What the errors mean to HTTP: `application/problem+json` on every 4xx and 5xx (RFC 9457)."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from model import errors
from service.schemas import SegmentQuery

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
FAULT = "fault"
"""The code of what nobody foresaw."""

STATUSES: dict[type[errors.UNetError], HTTPStatus] = {
    errors.UNetError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.ImageError: HTTPStatus.BAD_REQUEST,
    errors.ImageTypeRefused: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.ImageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.ImagePagesRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageChannelsRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ImageValuesInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RequestError: HTTPStatus.BAD_REQUEST,
    errors.UploadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UploadStalled: HTTPStatus.REQUEST_TIMEOUT,
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.FormatNotAcceptable: HTTPStatus.NOT_ACCEPTABLE,
    errors.ObjectsTooMany: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ParameterInvalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.DeadlineTooShort: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ServiceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServiceBusy: HTTPStatus.TOO_MANY_REQUESTS,
    errors.DeadlinePassed: HTTPStatus.GATEWAY_TIMEOUT,
    errors.InferenceFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""A class that is not named has the status of the nearest one above it."""

log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Answer every error that routes raise as a problem."""
    app.exception_handler(errors.UNetError)(_answer_domain_error)
    app.exception_handler(HTTPException)(_answer_http_error)
    app.exception_handler(RequestValidationError)(_answer_invalid_parameters)


def status_of(error: errors.UNetError) -> HTTPStatus:
    """The status of an error, or of the nearest class above it."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem(
    request_id: str,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    numbers: Mapping[str, float] | None = None,
) -> JSONResponse:
    """Build a problem; `code` makes its stable type, `request_id` finds it in the log.

    `numbers` are extension members (RFC 9457, section 3.2).
    """
    content = {
        **(numbers or {}),
        "type": f"urn:unet-service:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


def fault(request_id: str) -> JSONResponse:
    """Build the problem of a fault of ours: it says nothing of what is inside."""
    detail = "The service failed. Its log has the reason under this request id."
    return problem(request_id, HTTPStatus.INTERNAL_SERVER_ERROR, FAULT, detail)


def cut_short(request_id: str) -> JSONResponse:
    """Build the problem of a request that was not done when the grace was over."""
    status, code = STATUSES[errors.ServiceUnavailable], errors.ServiceStopping.code
    headers = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
    return problem(request_id, status, code, "The service stopped before this was done.", headers)


async def _answer_domain_error(request: Request, error: errors.UNetError) -> JSONResponse:
    status = status_of(error)
    headers: dict[str, str] = {}
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s", error, exc_info=error)
    if isinstance(error, errors.ServiceUnavailable):
        headers["Retry-After"] = str(error.numbers.get("retry_after_s", RETRY_AFTER_S))
    if isinstance(error, errors.ServiceStopping | errors.UploadStalled):
        headers["Connection"] = "close"
    return _answer(request, status, error.code, str(error), headers, error.numbers)


async def _answer_http_error(request: Request, error: HTTPException) -> JSONResponse:
    found = f"{request.method} {request.url.path}"
    detail = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {found}; /docs lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{found} is not offered; /docs lists what is.",
    }.get(HTTPStatus(error.status_code), str(error.detail))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    headers = dict(error.headers or {})
    return _answer(request, error.status_code, code, detail, headers)


async def _answer_invalid_parameters(
    request: Request, error: RequestValidationError
) -> JSONResponse:
    detail = " ".join(_describe(entry) for entry in error.errors())
    return await _answer_domain_error(request, errors.ParameterInvalid(f"{detail} See /docs."))


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str],
    numbers: Mapping[str, float] | None = None,
) -> JSONResponse:
    """Answer with a problem, and leave its code for the log and the metrics."""
    request.state.problem = code
    return problem(request.state.request_id, status, code, detail, headers, numbers)


def _describe(entry: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in entry["loc"][1:])[:64]
    if entry["type"] == "extra_forbidden":
        return f"There is no parameter {name!r}; there are {', '.join(SegmentQuery.model_fields)}."
    return f"The parameter {name!r} is {str(entry.get('input'))[:64]!r}: {entry['msg']}."
