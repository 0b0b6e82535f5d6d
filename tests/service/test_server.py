"""The real server, in a process of its own: signals and connections."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.service.conftest import noise, png

IMAGE = png(noise(60, 70))


@dataclass(frozen=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A running `python -m service`."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            yield connection

    def get(self, path: str) -> Answer:
        with self.connection() as connection:
            connection.request("GET", path)
            return answer_from(connection.getresponse())

    def segment(self, image: bytes, query: str = "") -> Answer:
        with self.connection() as connection:
            connection.request("POST", f"/segment{query}", image, {"Content-Type": "image/png"})
            return answer_from(connection.getresponse())

    @contextmanager
    def half_an_upload(self, image: bytes) -> Iterator["HalfAnUpload"]:
        """Send the first half of an image, after the server has said that it takes it."""
        with self.connection() as connection:
            connection.putrequest("POST", "/segment")
            connection.putheader("Content-Type", "image/png")
            connection.putheader("Content-Length", str(len(image)))
            connection.putheader("Expect", "100-continue")
            connection.endheaders()
            assert connection.sock.recv(64).startswith(b"HTTP/1.1 100")
            half = len(image) // 2
            connection.send(image[:half])
            yield HalfAnUpload(connection, image[half:])

    def terminate(self) -> None:
        """Send SIGTERM, and wait until new work is refused."""
        self.process.send_signal(signal.SIGTERM)
        wait_until(lambda: self.get("/readyz").status == 503)

    def log(self) -> str:
        return self._log.read_text()


@dataclass(frozen=True)
class HalfAnUpload:
    """An image of which the server has the first half."""

    connection: http.client.HTTPConnection
    rest: bytes

    def finish(self) -> None:
        self.connection.send(self.rest)

    def answer(self) -> Answer:
        return answer_from(self.connection.getresponse())


def answer_from(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def wait_until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s")
        time.sleep(0.01)


@contextmanager
def running(folder: Path, log: Path, **settings: str) -> Iterator[Server]:
    """Run the server until the block ends, ready from its start."""
    values = {"port": "0", "device": "cpu", "tile_edge": "444", "threads": "1"} | settings
    values["model_dir"] = str(folder)
    environment = {f"UNET_SERVICE_{name.upper()}": text for name, text in values.items()}
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env=os.environ | environment,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            wait_until(lambda: "running on http" in log.read_text() or process.poll() is not None)
            port = re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())
            if port is None:
                pytest.fail(log.read_text())
            server = Server(process, int(port[1]), log)
            wait_until(lambda: server.get("/readyz").status == 200)
            yield server
        finally:
            process.kill()


@pytest.fixture
def server(model_dir: Path, tmp_path: Path) -> Iterator[Server]:
    """Give a server of a tiny model, of which a test may make an end."""
    with running(model_dir, tmp_path / "log", shutdown_grace_s="20") as server:
        yield server


@pytest.fixture(scope="module")
def lasting(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server of a tiny model which all tests leave as they found it."""
    log = tmp_path_factory.mktemp("lasting") / "log"
    with running(model_dir, log, max_upload_bytes="1000000") as server:
        yield server


def test_a_request_in_flight_is_answered_after_sigterm(server: Server) -> None:
    with server.half_an_upload(IMAGE) as upload:
        server.terminate()
        upload.finish()
        assert upload.answer().status == 200


def test_an_image_that_is_being_segmented_is_answered_after_sigterm(server: Server) -> None:
    with server.half_an_upload(png(np.tile(noise(500, 500), (5, 5)))) as upload:
        upload.finish()
        server.process.send_signal(signal.SIGTERM)
        assert upload.answer().status == 200


def test_a_new_request_is_refused_with_503_after_sigterm(server: Server) -> None:
    with server.half_an_upload(IMAGE):
        server.terminate()
        refused = server.segment(IMAGE)
    assert (refused.status, refused.json()["type"]) == (503, "urn:unet-service:service-stopping")
    assert refused.headers["connection"] == "close"


def test_the_server_is_alive_while_it_drains(server: Server) -> None:
    with server.half_an_upload(IMAGE):
        server.terminate()
        assert server.get("/healthz").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_exit_code_after_a_signal_is_0(server: Server, number: signal.Signals) -> None:
    server.process.send_signal(number)
    assert server.process.wait(10) == 0


def test_the_exit_code_after_the_last_answer_is_0(server: Server) -> None:
    with server.half_an_upload(IMAGE) as upload:
        server.terminate()
        upload.finish()
        upload.answer()
    assert server.process.wait(10) == 0


def test_a_second_sigint_ends_it_at_once(model_dir: Path, tmp_path: Path) -> None:
    settings = {"shutdown_grace_s": "600", "stall_timeout_s": "600"}
    with (
        running(model_dir, tmp_path / "log", **settings) as server,
        server.half_an_upload(IMAGE),
    ):
        server.terminate()
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0


@pytest.fixture
def impatient(model_dir: Path, tmp_path: Path) -> Iterator[Server]:
    """Give a server that ends half a second after a signal, whatever is in flight."""
    settings = {"shutdown_grace_s": "0.5", "stall_timeout_s": "60"}
    with running(model_dir, tmp_path / "log", **settings) as server:
        yield server


def test_half_an_upload_does_not_outlast_the_grace(impatient: Server) -> None:
    with impatient.half_an_upload(IMAGE):
        impatient.terminate()
        assert impatient.process.wait(10) == 0


def test_a_request_that_the_grace_cuts_short_is_told_so(impatient: Server) -> None:
    with impatient.half_an_upload(IMAGE) as upload:
        impatient.terminate()
        answer = upload.answer()
    assert (answer.status, answer.json()["type"]) == (503, "urn:unet-service:service-stopping")


def test_the_log_of_an_end_by_the_grace_has_no_traceback(impatient: Server) -> None:
    with impatient.half_an_upload(IMAGE):
        impatient.terminate()
        impatient.process.wait(10)
    assert "Traceback" not in impatient.log()


def test_an_upload_that_stalls_is_ended(model_dir: Path, tmp_path: Path) -> None:
    with (
        running(model_dir, tmp_path / "log", stall_timeout_s="0.2") as server,
        server.half_an_upload(IMAGE) as upload,
    ):
        assert upload.answer().status == 408


def test_a_body_without_a_length_is_refused_before_it_ends(lasting: Server) -> None:
    with socket.create_connection(("127.0.0.1", lasting.port), timeout=20) as client:
        client.sendall(
            b"POST /segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):  # and no last chunk
            client.sendall(b"%x\r\n%b\r\n" % (1 << 16, bytes(1 << 16)))
        assert client.recv(64).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /segment HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        bytes(range(256)) * 400,
    ],
    ids=["TLS", "no version", "negative length", "no chunk", "noise"],
)
def test_garbage_does_not_stop_the_server(lasting: Server, garbage: bytes) -> None:
    with (
        suppress(ConnectionError),  # it may hang up before it has read all
        socket.create_connection(("127.0.0.1", lasting.port), timeout=20) as client,
    ):
        client.sendall(garbage)
        client.recv(1024)
    assert lasting.segment(IMAGE).status == 200


def test_a_client_that_leaves_in_its_upload_does_not_stop_the_server(lasting: Server) -> None:
    with lasting.half_an_upload(IMAGE):
        pass
    wait_until(lambda: "the client left" in lasting.log())
    assert lasting.segment(IMAGE).status == 200


def test_every_line_of_the_log_is_an_object(lasting: Server) -> None:
    asked_id = lasting.segment(IMAGE).headers["x-request-id"]
    wait_until(lambda: asked_id in lasting.log())
    lines = [json.loads(line) for line in lasting.log().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
    assert any(line["logger"].startswith("uvicorn") for line in lines)
    assert lines[-1]["request_id"] == asked_id
