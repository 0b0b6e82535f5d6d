"""Sends one request, and says what was wrong with what came of it."""

import http.client
import time
from contextlib import closing

import httpx

from benchmarks.soak.cases import Case, segments_of

MOST_TRIES = 100
PROBLEM = "application/problem+json"


def send(client: httpx.Client, case: Case) -> str:
    """Send a request.

    Returns:
        What was wrong; nothing, if all was as it must be.
    """
    if case.kind == "cancelled":
        leave(client, case)
        return ""
    answer = post(client, case)
    if case.kind == "good":
        return (
            "" if read(answer) == case.answer else f"{answer.status_code} {answer.content[:200]!r}"
        )
    is_problem = answer.headers.get("Content-Type") == PROBLEM
    return "" if is_problem and answer.status_code == case.status else f"{answer.status_code}"


def post(client: httpx.Client, case: Case) -> httpx.Response:
    """Send a request, as a form or as the body; come again when the server says so."""
    for _ in range(MOST_TRIES):
        if case.as_form:
            files = {"image": ("image", case.body, case.content_type)}
            answer = client.post(case.path, files=files)
        else:
            headers = {"Content-Type": case.content_type}
            answer = client.post(case.path, content=case.body, headers=headers)
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            break
        time.sleep(float(answer.headers["Retry-After"]))
    return answer


def read(answer: httpx.Response) -> bytes:
    """Give what a good answer says, without what differs from time to time."""
    if not answer.is_success or answer.headers["Content-Type"] == "image/png":
        return answer.content
    return segments_of(answer.json()["segments"])


def leave(client: httpx.Client, case: Case) -> None:
    """Send some of a request and close the connection."""
    url = client.base_url
    with closing(http.client.HTTPConnection(url.host, url.port, timeout=60)) as connection:
        connection.putrequest("POST", case.path)
        connection.putheader("Content-Type", case.content_type)
        connection.putheader("Content-Length", str(len(case.body)))
        connection.endheaders()
        connection.send(case.body[: round(case.sent * len(case.body))])
        if case.sent == 1:
            time.sleep(0.02)  # so that some leave while their image is decoded or segmented
