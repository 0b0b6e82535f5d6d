"""A server in a process of its own, and requests to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import httpx

from benchmarks.subject import MODEL, ROOT
from model.segmentation import DEFAULT_TILE_EDGE

SERVICE = (sys.executable, "-m", "service")
UNHURRIED = {"device": "cpu", "deadline_s": 3600, "tile_edge": DEFAULT_TILE_EDGE}
"""Settings of every server: what is slow here is measured, and not refused; and tiles are those of
the plans made beside it, whatever memory there is."""
READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
TIMEOUT_S = 1800
MOST_TRIES = 1000


@contextmanager
def served(**settings: object) -> Iterator[httpx.Client]:
    """Serve models until the block ends: those that are shipped, unless a setting says otherwise.

    Args:
        settings: Those of the service, by their names.
    """
    port = free_port()
    models = {"model_dir": MODEL.parent, "default_model": MODEL.stem}
    wanted = models | UNHURRIED | {"port": port} | settings
    with process(SERVICE, variables(wanted), port, "/readyz") as (client, _):
        yield client


def variables(settings: Mapping[str, object]) -> dict[str, str]:
    """Give settings of the service as variables of its process."""
    return {f"UNET_SERVICE_{name.upper()}": str(value) for name, value in settings.items()}


@contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str], port: int, ready: str
) -> Iterator[tuple[httpx.Client, "subprocess.Popen[bytes]"]]:
    """Run a server until the block ends, ready from its start.

    Args:
        command: What starts it.
        environment: Variables beside those of this process, of which the service's are left out.
        port: Where it will listen.
        ready: The path that says when it is ready.

    Raises:
        TimeoutError: if it does not become so, or has ended.
    """
    plain = {name: value for name, value in os.environ.items() if "UNET_SERVICE" not in name}
    running = subprocess.Popen(  # noqa: S603 (our own command)
        command,
        cwd=ROOT,
        env={**plain, **environment},
        stdout=sys.stderr,
        process_group=0,  # so that what it started can be ended with it
    )
    try:
        # Peers close a connection that was idle for 5 s, it may be just as a request goes out.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, limits=limits, trust_env=False
        ) as client:
            wait_until_ready(client, running, ready)
            yield client, running
    finally:
        stop(running)


def stop(running: "subprocess.Popen[bytes]") -> int:
    """End a process and what it has left running; give how it ended."""
    running.terminate()
    try:
        code = running.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        running.kill()
        code = running.wait()
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    return code


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def wait_until_ready(
    client: httpx.Client, running: "subprocess.Popen[bytes]", path: str, pause_s: float = 0.02
) -> None:
    """Ask until a server is ready.

    Raises:
        TimeoutError: if it does not become so, or has ended.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and running.poll() is None:
        try:
            if client.get(path).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(pause_s)
    raise TimeoutError(f"{running.args!s} was not ready within {READY_TIMEOUT_S} s")


def segment(client: httpx.Client, body: bytes, path: str = "/segment") -> httpx.Response:
    """Send an image as a form does; come again when the server says so.

    Raises:
        httpx.HTTPStatusError: if the answer is no mask.
    """
    for _ in range(MOST_TRIES):
        answer = client.post(path, files={"image": ("image.png", body, "image/png")})
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            break
        time.sleep(float(answer.headers["Retry-After"]))
    answer.raise_for_status()
    return answer
