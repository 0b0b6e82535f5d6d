"""The body of a request, read as the image that it carries."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from model.errors import (
    FormInvalid,
    ImageEmpty,
    ImageMissing,
    ImageTypeRefused,
    ImageUnreadable,
    UNetError,
    UploadStalled,
    UploadTooLarge,
)
from service.upload import IMAGE_TYPES, Upload, _Form, check_declared_format, read_upload
from tests.service.direct import SOON_S, SkippingLoop, run_skipping

BOUNDARY = "frontier"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
IMAGE = bytes(range(256)) * 20 + b"\r\n--fron\r\n--frontie\r\n--"


def part(
    name: str | None = "image",
    content: bytes = IMAGE,
    *,
    filename: str | None = "a.tif",
    content_type: str | None = None,
    headers: str = "",
) -> bytes:
    disposition = "form-data"
    disposition += "" if name is None else f'; name="{name}"'
    disposition += "" if filename is None else f'; filename="{filename}"'
    lines = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{headers}"
    lines += "" if content_type is None else f"Content-Type: {content_type}\r\n"
    return lines.encode() + b"\r\n" + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def request(
    body: bytes, content_type: str | None, chunk_bytes: int = 1 << 16, **headers: str
) -> Request:
    """Build a request whose body arrives in pieces."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        fields["content-type"] = content_type
    if "transfer-encoding" not in fields:
        fields.setdefault("content-length", str(len(body)))
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/segment",
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
    }
    pieces = messages(body, chunk_bytes)

    async def receive() -> Message:
        return next(pieces)

    return Request(scope, receive)


def messages(body: bytes, chunk_bytes: int) -> Iterator[Message]:
    for start in range(0, len(body), chunk_bytes):
        piece = body[start : start + chunk_bytes]
        yield {"type": "http.request", "body": piece, "more_body": True}
    yield {"type": "http.request", "body": b"", "more_body": False}
    pytest.fail("the body was read past its end")


def upload(
    body: bytes,
    content_type: str | None = FORM,
    *,
    limit: int = 1 << 20,
    chunk_bytes: int = 1 << 16,
    **headers: str,
) -> Upload:
    made = request(body, content_type, chunk_bytes, **headers)
    return asyncio.run(read_upload(made, max_upload_bytes=limit, stall_timeout_s=1, timeout_s=60))


@pytest.mark.parametrize("content_type", [*IMAGE_TYPES, "IMAGE/PNG", "image/png; charset=UTF-8"])
def test_a_raw_body_of_an_image_type_is_the_image(content_type: str) -> None:
    assert upload(IMAGE, content_type).data == IMAGE


def test_the_content_type_is_kept_in_lower_case_without_parameters() -> None:
    assert upload(IMAGE, "Image/TIFF; application=x").content_type == "image/tiff"


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 1000, 1 << 16])
def test_a_form_gives_its_image_however_it_is_cut_into_chunks(chunk_bytes: int) -> None:
    body = form(part("note", b"hello", filename=None), part(content_type="image/tiff"))
    read = upload(body, chunk_bytes=chunk_bytes)
    assert (read.data, read.content_type, read.fields) == (IMAGE, "image/tiff", {"note": "hello"})


@pytest.mark.parametrize("content_type", [None, *IMAGE_TYPES])
def test_a_forms_file_may_have_any_image_type_or_none(content_type: str | None) -> None:
    read = upload(form(part(content_type=content_type)))
    assert read.content_type == (content_type or "application/octet-stream")


def test_a_field_named_image_is_the_image_even_without_a_file_name() -> None:
    assert upload(form(part(filename=None))).data == IMAGE


@pytest.mark.parametrize("content_type", ["text/plain", "image/gif", "application/json", "x" * 999])
def test_a_body_of_another_type_is_refused_and_its_type_told(content_type: str) -> None:
    with pytest.raises(ImageTypeRefused, match=content_type[:50]):
        upload(IMAGE, content_type)


def test_a_body_without_a_type_is_refused() -> None:
    with pytest.raises(ImageTypeRefused, match="no content type; image/png"):
        upload(IMAGE, None)


def test_a_chunked_body_without_a_type_is_refused() -> None:
    with pytest.raises(ImageTypeRefused, match="no content type"):
        upload(IMAGE, None, transfer_encoding="chunked")


def test_a_request_without_body_and_type_holds_no_image() -> None:
    with pytest.raises(ImageMissing, match="no body"):
        upload(b"", None)


@pytest.mark.parametrize("content_type", ["text/plain", "image/gif"])
def test_a_forms_file_of_another_type_is_refused(content_type: str) -> None:
    with pytest.raises(ImageTypeRefused, match=f"The form's image has .*{content_type}"):
        upload(form(part(content_type=content_type)))


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(ImageTypeRefused, match="'gzip'"):
        upload(IMAGE, "image/png", content_encoding="gzip")


def test_control_characters_of_a_type_are_not_echoed() -> None:
    with pytest.raises(ImageTypeRefused) as caught:
        upload(IMAGE, "text/\x1b[31m\xe9")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_an_empty_body_is_an_empty_image() -> None:
    with pytest.raises(ImageEmpty):
        upload(b"", "image/png")


def test_an_empty_file_is_an_empty_image() -> None:
    with pytest.raises(ImageEmpty):
        upload(form(part(content=b"")))


def test_a_form_without_image_says_which_fields_it_has() -> None:
    with pytest.raises(ImageMissing, match="it has 'file', 'no\\?te'"):
        upload(form(part("file"), part("no\x07te", b"x", filename=None)))


def test_a_form_without_fields_says_so() -> None:
    with pytest.raises(ImageMissing, match="it has nothing"):
        upload(form())


def test_a_declared_length_above_the_limit_is_refused_before_the_body_is_read() -> None:
    async def receive() -> Message:
        pytest.fail("the body was read")

    made = request(b"", "image/png", content_length="101")
    unread = Request(made.scope, receive)
    with pytest.raises(UploadTooLarge, match="100 bytes"):
        asyncio.run(read_upload(unread, max_upload_bytes=100, stall_timeout_s=1, timeout_s=60))


@pytest.mark.parametrize("length", ["9" * 5000, "1" + "0" * 30])
def test_an_absurd_declared_length_is_too_large(length: str) -> None:
    with pytest.raises(UploadTooLarge):
        upload(IMAGE, "image/png", content_length=length)


@pytest.mark.parametrize("content_type", ["image/png", FORM])
def test_a_chunked_body_is_counted_as_it_arrives(content_type: str) -> None:
    body = form(part()) if content_type == FORM else IMAGE
    assert (
        upload(
            body, content_type, limit=len(body), chunk_bytes=99, transfer_encoding="chunked"
        ).data
        == IMAGE
    )
    with pytest.raises(UploadTooLarge):
        upload(body, content_type, limit=len(body) - 1, chunk_bytes=99, transfer_encoding="chunked")


def test_reading_stops_at_the_chunk_that_passes_the_limit() -> None:
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 10
        return {"type": "http.request", "body": bytes(10), "more_body": True}

    scope = request(b"", "image/png", transfer_encoding="chunked").scope
    with pytest.raises(UploadTooLarge):
        asyncio.run(
            read_upload(
                Request(scope, receive), max_upload_bytes=100, stall_timeout_s=1, timeout_s=60
            )
        )
    assert received == 110


def read_skipping(
    pieces: Iterator[Message], wait_s: float, content_type: str = "image/png"
) -> Upload:
    """Read a body of which each piece comes so late; a client stalls after `SOON_S`."""
    scope = request(b"x", content_type).scope

    async def read(loop: SkippingLoop) -> Upload:
        async def receive() -> Message:
            loop.skipped_s += wait_s
            for _ in range(2):  # timers come after what goes on by itself
                await asyncio.sleep(0)
            return next(pieces)

        return await read_upload(
            Request(scope, receive),
            max_upload_bytes=1000,
            stall_timeout_s=SOON_S,
            timeout_s=20 * SOON_S,
        )

    return run_skipping(read)


@pytest.mark.parametrize("content_type", ["image/png", FORM])
def test_a_silent_client_is_given_up(content_type: str) -> None:
    with pytest.raises(UploadStalled, match="sent nothing for 1000 s"):
        read_skipping(messages(IMAGE[:20], 10), SOON_S, content_type)


def test_a_slow_client_that_keeps_sending_is_waited_for() -> None:
    read = read_skipping(messages(IMAGE[:200], 10), SOON_S / 2)
    assert read.data == IMAGE[:200]


def test_a_client_that_sends_a_byte_now_and_then_is_given_up_in_the_end() -> None:
    with pytest.raises(UploadStalled, match="not done within 20000 s"):
        read_skipping(messages(IMAGE[:200], 1), SOON_S / 2)


@pytest.mark.parametrize("content_type", ["image/png", FORM])
def test_a_client_that_leaves_is_not_called_stalled(content_type: str) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = request(b"x", content_type).scope
    with pytest.raises(ClientDisconnect):
        asyncio.run(
            read_upload(
                Request(scope, receive), max_upload_bytes=100, stall_timeout_s=1, timeout_s=60
            )
        )


@pytest.mark.parametrize(
    "content_type",
    [
        f"{FORM}; charset=punycode",
        f"{FORM}; charset=utf-16",
        "image/png; charset=latin-1",
    ],
)
def test_a_charset_but_utf_8_is_refused_before_the_body_is_read(content_type: str) -> None:
    async def receive() -> Message:
        pytest.fail("the body was read")

    scope = request(b"x", content_type).scope
    with pytest.raises(FormInvalid, match="only utf-8"):
        asyncio.run(
            read_upload(
                Request(scope, receive), max_upload_bytes=100, stall_timeout_s=1, timeout_s=60
            )
        )


def test_a_parts_charset_but_utf_8_is_refused() -> None:
    note = part("note", b"x", filename=None, content_type="text/plain; charset=punycode")
    with pytest.raises(FormInvalid, match="'punycode'; only utf-8"):
        upload(form(note, part()))


def test_a_charset_field_but_utf_8_is_refused() -> None:
    with pytest.raises(FormInvalid, match="'punycode'; only utf-8"):
        upload(form(part("_charset_", b"punycode", filename=None), part()))


@pytest.mark.parametrize("boundary", ["", '; boundary=""', f"; boundary={'b' * 71}"])
def test_a_form_needs_a_boundary_of_at_most_70_bytes(boundary: str) -> None:
    with pytest.raises(FormInvalid, match="boundary has no 1 to 70"):
        upload(form(part()), "multipart/form-data" + boundary)


def test_a_boundary_may_have_70_bytes() -> None:
    boundary = "b" * 70
    body = form(part()).replace(f"--{BOUNDARY}".encode(), f"--{boundary}".encode())
    assert upload(body, f'multipart/form-data; boundary="{boundary}"').data == IMAGE


def test_eight_other_fields_are_taken_and_a_ninth_is_refused() -> None:
    fields = [part(f"f{index}", b"v", filename=None) for index in range(9)]
    assert len(upload(form(*fields[:8], part())).fields) == 8
    with pytest.raises(FormInvalid, match="more than 8 fields"):
        upload(form(*fields, part()))


def test_a_field_may_have_256_bytes_and_no_more() -> None:
    assert upload(form(part("f", b"v" * 256, filename=None), part())).fields["f"] == "v" * 256
    with pytest.raises(FormInvalid, match="'f' has more than 256 bytes"):
        upload(form(part("f", b"v" * 257, filename=None), part()))


def test_a_second_file_is_refused() -> None:
    with pytest.raises(FormInvalid, match="another file, 'mask'"):
        upload(form(part(), part("mask")))


def test_a_second_image_is_refused() -> None:
    with pytest.raises(FormInvalid, match="'image' more than once"):
        upload(form(part(), part()))


def test_field_names_and_values_are_utf_8() -> None:
    read = upload(form(part("größe", "groß".encode(), filename=None), part()))
    assert read.fields == {"größe": "groß"}


@pytest.mark.parametrize("end", range(1, 40))
def test_a_form_cut_short_is_malformed(end: int) -> None:
    body = form(part(content=b"abc"))
    with pytest.raises(FormInvalid):
        upload(body[: -2 - 3 * end])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        IMAGE,
        form(part(name=None)),
        form(part(headers="bad header: x\r\n")),
        form(part(headers="X-Long: " + "x" * 1025 + "\r\n")),
        form(part(headers="".join(f"X-{index}: y\r\n" for index in range(8)))),
        form(part("f", b"\xff\xfe", filename=None), part()),
        form(part()).replace(b'name="image"', b'name="\xff"'),
        form(part()).replace(b"form-data", b"attachment"),
    ],
)
def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises(FormInvalid):
        upload(body, content_length=str(len(body) or 1))


def test_hostile_forms_raise_our_errors_alone() -> None:
    random = np.random.default_rng(0)
    whole = form(
        part("note", b"hello", filename=None), part(content=b"abc", content_type="image/png")
    )
    outcomes = set()
    for _ in range(500):
        body = bytearray(whole)
        for index in random.integers(len(body), size=random.integers(1, 5)):
            body[index] = random.integers(256)
        try:
            upload(bytes(body), chunk_bytes=int(random.choice([3, 50, 1000])))
            outcomes.add("read")
        except UNetError as error:
            outcomes.add(error.code)
    assert {"read", "form-invalid"} <= outcomes


def test_of_a_mebibyte_of_boundary_look_alikes_every_byte_is_taken_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = f"\r\n--{BOUNDARY[:-1]}".encode() * 70_000
    taken: list[int] = []
    take = _Form._add_content

    def take_and_count(self: _Form, data: bytes, start: int, end: int) -> None:
        taken.append(end - start)
        take(self, data, start, end)

    monkeypatch.setattr(_Form, "_add_content", take_and_count)
    assert upload(form(part(content=content)), limit=1 << 21).data == content
    assert sum(taken) == len(content)
    assert len(taken) < 3 * 70_000


@pytest.mark.parametrize(
    ("content_type", "found"), [("image/png", "jpeg"), ("image/tiff", "png"), ("image/jpg", "tiff")]
)
def test_an_image_of_another_format_than_declared_is_refused(content_type: str, found: str) -> None:
    with pytest.raises(ImageUnreadable, match=f"sent as {content_type} .* {found.upper()}"):
        check_declared_format(Upload(b"x", content_type), found)  # type: ignore[arg-type]  # parametrised


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/pjpeg", "application/octet-stream"])
def test_an_image_of_the_declared_format_or_of_none_passes(content_type: str) -> None:
    check_declared_format(Upload(b"x", content_type), "jpeg")
