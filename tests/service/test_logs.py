"""The log: one JSON object a line, under the id of its request."""

import json
import logging
import re
import threading
from typing import Any

import pytest

from service import routes
from service.logs import JsonLines, configure, request_id
from service.masks import encode
from tests.service.conftest import Log, TestClient, noise, png

IMAGE = png(noise(20, 30))


def record(message: str = "hello", *arguments: object, **attributes: object) -> logging.LogRecord:
    made = logging.LogRecord("a.b", logging.WARNING, "a.py", 1, message, arguments, None)
    made.__dict__ |= attributes
    return made


def written(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonLines().format(made)
    assert "\n" not in line
    assert line.isascii()
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def test_a_line_says_when_how_grave_from_where_and_what() -> None:
    assert written(record("%d of %s", 3, "four", created=1767323045.0678)) == {
        "time": "2026-01-02T03:04:05.067Z",
        "level": "WARNING",
        "logger": "a.b",
        "message": "3 of four",
    }


@pytest.mark.parametrize("text", ["a\nb", 'a"b', "a\r\x00b", "\u2028ü\ud800", "{}"])
def test_whatever_is_logged_stays_on_its_line(text: str) -> None:
    assert written(record("%s", text))["message"] == text


def test_fields_are_fields_of_the_line() -> None:
    assert written(record(fields={"status": 200}))["status"] == 200


def test_an_exception_is_one_string() -> None:
    error = ValueError("secret")
    error.__cause__ = KeyError("cause")
    told = written(record(exc_info=(ValueError, error, None)))["exception"]
    assert told.startswith("KeyError: 'cause'\n")
    assert told.endswith("\nValueError: secret")


def test_a_line_outside_of_requests_has_no_request_id() -> None:
    assert "request_id" not in written(record())


def test_a_line_within_a_request_has_its_id() -> None:
    token = request_id.set("7")
    assert written(record())["request_id"] == "7"
    request_id.reset(token)


def test_the_log_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as fresh:
        fresh.setattr(logging, "root", logging.RootLogger(logging.WARNING))
        configure()
        logging.getLogger().info("running on %s", "http://a")
    logging.captureWarnings(False)
    out, err = capsys.readouterr()
    (line,) = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert (line["level"], line["message"]) == ("INFO", "running on http://a")


def post(client: TestClient, body: bytes = IMAGE, asked_id: str = "a-7") -> Any:
    headers = {"content-type": "image/png", "x-request-id": asked_id}
    return client.post("/segment?format=png", content=body, headers=headers)


def test_every_request_has_a_line(client: TestClient, log: Log) -> None:
    post(client)
    (line,) = log.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("duration_ms") > 0
    assert line == {
        "level": "INFO",
        "logger": "service.request_scope",
        "message": "request",
        "request_id": "a-7",
        "method": "POST",
        "path": "/segment",
        "status": 200,
        "problem": "",
    }


def test_the_line_of_a_refused_request_says_why(client: TestClient, log: Log) -> None:
    client.get("/nowhere")
    (line,) = log.lines()
    assert (line["path"], line["status"], line["problem"]) == ("/nowhere", 404, "not-found")


def test_a_path_cannot_forge_a_line(client: TestClient, log: Log) -> None:
    client.get("/%0A%7B%7D%0Aforged")
    (line,) = log.lines()
    assert line["path"] == "/\n{}\nforged"


def test_what_a_thread_logs_for_a_request_has_its_id(
    client: TestClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()

    def encode_and_tell(*arguments: Any) -> Any:
        threads.add(threading.current_thread())
        logging.getLogger("service.masks").info("encoding")
        return encode(*arguments)

    monkeypatch.setattr(routes, "encode", encode_and_tell)
    for asked_id in ("a", "b"):
        post(client, asked_id=asked_id)
    told = [(line["message"], line["request_id"]) for line in log.lines()]
    assert told == [("encoding", "a"), ("request", "a"), ("encoding", "b"), ("request", "b")]
    assert threading.main_thread() not in threads


def test_no_request_id_is_left_when_the_request_is_over(client: TestClient, log: Log) -> None:
    post(client)
    logging.getLogger("service").info("idle")
    assert "request_id" not in log.lines()[-1]
