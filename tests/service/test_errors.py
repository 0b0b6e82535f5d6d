"""What the errors mean to HTTP."""

import asyncio
import json
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from model import errors
from model.errors import UNetError
from service.errors import STATUSES, install, status_of


def family(root: type[UNetError]) -> Iterator[type[UNetError]]:
    """Give a class and all below it."""
    yield root
    for child in root.__subclasses__():
        yield from family(child)


def name_of(kind: type[UNetError]) -> str:
    return kind.__name__


def answer_to(error: UNetError) -> Response:
    """Let the installed handler answer an error."""
    app = FastAPI()
    install(app)
    request = Request({"type": "http", "state": {"request_id": "7"}})
    handler = app.exception_handlers[UNetError]
    response: Response = asyncio.run(handler(request, error))  # type: ignore[arg-type]  # it is one
    return response


@pytest.mark.parametrize(
    "kind", [*family(errors.ImageError), *family(errors.RequestError)], ids=name_of
)
def test_what_is_wrong_with_a_request_is_a_4xx(kind: type[UNetError]) -> None:
    assert 400 <= status_of(kind("")) < 500


@pytest.mark.parametrize(
    "kind",
    [
        UNetError,
        *family(errors.GeometryError),
        *family(errors.ArtefactError),
        *family(errors.DeviceError),
        *family(errors.TrainingError),
        errors.InferenceFailed,
    ],
    ids=name_of,
)
def test_what_is_wrong_with_us_is_a_500(kind: type[UNetError]) -> None:
    assert status_of(kind("")) == HTTPStatus.INTERNAL_SERVER_ERROR


def test_a_class_without_a_status_has_that_of_the_nearest_one_above_it() -> None:
    class ImageUpsideDown(errors.ImageTooLarge):
        """A class that nobody gave a status."""

    assert status_of(ImageUpsideDown("")) == STATUSES[errors.ImageTooLarge]


def test_no_two_errors_have_one_code() -> None:
    kinds = [kind for kind in family(UNetError) if kind.__module__ == "model.errors"]
    assert len({kind.code for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("kind", list(family(UNetError)), ids=name_of)
def test_the_type_of_a_problem_is_the_code_of_its_error(kind: type[UNetError]) -> None:
    problem = json.loads(bytes(answer_to(kind("")).body))
    assert problem["type"] == f"urn:unet-service:{kind.code}"


@pytest.mark.parametrize(
    "kind",
    [
        errors.ServiceUnavailable,
        errors.ServiceBusy,
        errors.ServiceNotReady,
        errors.ServiceStopping,
    ],
    ids=name_of,
)
def test_who_is_to_come_again_is_told_when(kind: type[UNetError]) -> None:
    assert int(answer_to(kind("")).headers["retry-after"]) > 0


def test_the_numbers_of_an_error_stand_in_its_problem() -> None:
    answer = answer_to(errors.ServiceBusy("Full.", queued_images=3, retry_after_s=12))
    problem = json.loads(bytes(answer.body))
    assert (problem["queued_images"], problem["retry_after_s"]) == (3, 12)
    assert (problem["status"], problem["detail"]) == (429, "Full.")
    assert answer.headers["retry-after"] == "12"


def test_a_deadline_that_passed_is_no_503() -> None:
    """That says that the service starts, stops or is broken."""
    answer = answer_to(errors.DeadlinePassed("Too late."))
    assert (answer.status_code, "retry-after" in answer.headers) == (504, False)


@pytest.mark.parametrize(
    "kind", [errors.InferenceFailed, errors.ImageEmpty, errors.DeadlineTooShort], ids=name_of
)
def test_who_need_not_come_again_is_not_told_to(kind: type[UNetError]) -> None:
    assert "retry-after" not in answer_to(kind("")).headers


@pytest.mark.parametrize("kind", [errors.ServiceStopping, errors.UploadStalled], ids=name_of)
def test_a_connection_that_leads_nowhere_is_closed(kind: type[UNetError]) -> None:
    assert answer_to(kind("")).headers["connection"] == "close"
