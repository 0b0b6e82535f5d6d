"""The body of a request, read as the image that it carries.

A body is either the image itself or a multipart form with the image in its field `image`. It is
counted while it arrives and kept in memory; nothing is written to disk.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from model.errors import (
    FormInvalid,
    ImageEmpty,
    ImageMissing,
    ImageTypeRefused,
    ImageUnreadable,
    UploadStalled,
    UploadTooLarge,
)
from service.images import Format

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

IMAGE_FIELD = "image"

IMAGE_TYPES: Mapping[str, Format | None] = {
    "image/png": "png",
    "image/x-png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/pjpeg": "jpeg",
    "image/tiff": "tiff",
    "image/x-tiff": "tiff",
    "application/octet-stream": None,
}
"""The content types that an image may have, each with the format that it declares."""

_FORM_TYPE = "multipart/form-data"
_MAX_FIELDS = 8
_MAX_FIELD_BYTES = 256
_MAX_BOUNDARY_BYTES = 70
_MAX_PART_HEADERS = 8
_MAX_PART_HEADER_BYTES = 1024
_MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Upload:
    """An image as it was sent."""

    data: bytes
    content_type: str
    """What the sender says that it is; `application/octet-stream` says nothing."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The other fields of the form."""


async def read_upload(
    request: Request, *, max_upload_bytes: int, stall_timeout_s: float, timeout_s: float
) -> Upload:
    """Read the image out of a request's body.

    Args:
        request: A request whose body was not read yet.
        max_upload_bytes: The most bytes that the body may have, a form's own lines included.
        stall_timeout_s: How long the client may send nothing.
        timeout_s: How long all of it may take: a client that sends a byte now and then is let go.

    Raises:
        ImageTypeRefused: The body, or the form's file, is of a type that is not read.
        ImageMissing: There is no body, or the form has no field `image`.
        ImageEmpty: The image holds no bytes.
        UploadTooLarge: The body is larger than the limit.
        UploadStalled: The client sent nothing for too long, or was not done in time.
        FormInvalid: The form is malformed or holds more than it may.
        starlette.requests.ClientDisconnect: The client left.
    """
    content_type, parameters = _content_type(request)
    _check_length(request, max_upload_bytes)
    with _in_time(timeout_s):
        async with (
            asyncio.timeout(timeout_s),
            aclosing(_chunks(request, max_upload_bytes, stall_timeout_s)) as chunks,
        ):
            if content_type == _FORM_TYPE:
                upload = await _read_form(chunks, parameters)
            else:
                upload = Upload(b"".join([chunk async for chunk in chunks]), content_type)
    if not upload.data:
        raise ImageEmpty("The image holds no bytes.")
    return upload


def check_declared_format(upload: Upload, found: Format) -> None:
    """Check that the image is what its content type says.

    Args:
        upload: The image as it was sent.
        found: The format that its bytes have.

    Raises:
        ImageUnreadable: The content type names another format.
    """
    if IMAGE_TYPES[upload.content_type] not in (None, found):
        raise ImageUnreadable(
            f"The image was sent as {upload.content_type} but its bytes are those of a "
            f"{found.upper()}."
        )


def _content_type(request: Request) -> tuple[str, Mapping[str, str]]:
    """Read the request's content type and its parameters, and refuse what is not read."""
    header = request.headers.get("content-type")
    if header is None and not _has_body(request):
        raise ImageMissing(
            f"The request has no body. Send the image as the body, or in the field "
            f"'{IMAGE_FIELD}' of a form."
        )
    content_type, parameters = _media_type(header or "")
    if content_type != _FORM_TYPE:
        _check_image_type(content_type, "The request")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise ImageTypeRefused(f"The body has content encoding {_shown(encoding)}; none is read.")
    return content_type, parameters


def _has_body(request: Request) -> bool:
    length = request.headers.get("content-length", "0")
    return "transfer-encoding" in request.headers or length != "0"


def _media_type(header: str) -> tuple[str, dict[str, str]]:
    """Split a Content-Type into its media type and its parameters."""
    media_type, options = parse_options_header(header)
    parameters = {key.decode("latin-1"): value.decode("latin-1") for key, value in options.items()}
    _check_charset(parameters.get("charset", "utf-8"))
    return media_type.decode("latin-1"), parameters


def _check_charset(charset: str) -> None:
    # Decoding by a name that the client chose can take half a minute: Python knows punycode.
    if charset.lower() not in ("utf-8", "utf8"):
        raise FormInvalid(f"The charset is {_shown(charset)}; only utf-8 is read.")


def _check_image_type(content_type: str, what: str) -> None:
    if content_type not in IMAGE_TYPES:
        found = f"content type {_shown(content_type)}" if content_type else "no content type"
        raise ImageTypeRefused(
            f"{what} has {found}; image/png, image/jpeg, image/tiff, application/octet-stream "
            f"and, for the whole body, {_FORM_TYPE} are read."
        )


def _shown(text: str) -> str:
    """Quote what a client sent, printable and cut short."""
    printable = re.sub(r"[^ -~]", "?", text[:_MAX_SHOWN_CHARACTERS])
    return f"'{printable}{'...' if len(text) > _MAX_SHOWN_CHARACTERS else ''}'"


def _check_length(request: Request, max_upload_bytes: int) -> None:
    length = request.headers.get("content-length", "0")
    # Python refuses to convert thousands of digits.
    if length.isdecimal() and (len(length) > 18 or int(length) > max_upload_bytes):
        raise _too_large(max_upload_bytes)


def _too_large(max_upload_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"The body is larger than the limit of {max_upload_bytes:,} bytes.")


async def _chunks(
    request: Request, max_upload_bytes: int, stall_timeout_s: float
) -> AsyncGenerator[bytes]:
    """Receive the body piece by piece, counted and timed."""
    received_bytes = 0
    async with aclosing(request.stream()) as stream:
        while chunk := await _next_chunk(stream, stall_timeout_s):
            received_bytes += len(chunk)
            if received_bytes > max_upload_bytes:
                raise _too_large(max_upload_bytes)
            yield chunk


@contextmanager
def _in_time(timeout_s: float) -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise UploadStalled(f"The upload was not done within {timeout_s:g} s.") from exc


async def _next_chunk(stream: AsyncIterator[bytes], stall_timeout_s: float) -> bytes:
    """Wait for the next piece of the body; the last one is empty."""
    try:
        async with asyncio.timeout(stall_timeout_s):
            return await anext(stream, b"")
    except TimeoutError as exc:
        raise UploadStalled(f"The client sent nothing for {stall_timeout_s:g} s.") from exc


async def _read_form(chunks: AsyncIterator[bytes], parameters: Mapping[str, str]) -> Upload:
    boundary = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= _MAX_BOUNDARY_BYTES:
        raise FormInvalid(f"The form's boundary has no 1 to {_MAX_BOUNDARY_BYTES} characters.")
    form = _Form()
    with _parsing():
        parser = MultipartParser(
            boundary.encode("latin-1"),
            form.callbacks,
            max_header_count=_MAX_PART_HEADERS,
            max_header_size=_MAX_PART_HEADER_BYTES,
        )
        async for chunk in chunks:
            parser.write(chunk)
        return form.upload()


@contextmanager
def _parsing() -> Iterator[None]:
    """Turn what the parser raises into `FormInvalid`, in our words."""
    try:
        yield
    except (FormParserError, UnicodeDecodeError) as exc:
        raise FormInvalid("The body is no well-formed multipart form in utf-8.") from exc


@dataclass(slots=True)
class _Part:
    """One part of a form: its headers by lower-case name, and its content so far."""

    headers: dict[str, bytes] = field(default_factory=dict)
    name: str = ""
    content_type: str = ""
    is_file: bool = False
    content: bytearray = field(default_factory=bytearray)

    @property
    def is_image(self) -> bool:
        """Whether this is the field that holds the image."""
        return self.name == IMAGE_FIELD


class _Form:
    """What a form has brought so far, held to its limits at each call of the parser."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._is_whole = False

    @property
    def callbacks(self) -> "MultipartCallbacks":
        """What the parser is to call."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_to_header_name,
            "on_header_value": self._add_to_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_content,
            "on_end": self._end,
        }

    def upload(self) -> Upload:
        """Give the form's image and other fields, once all was parsed."""
        if not self._is_whole:
            raise FormInvalid("The form ends before its closing boundary.")
        self._check_names()
        image = next((part for part in self._parts if part.is_image), None)
        if image is None:
            found = ", ".join(_shown(part.name) for part in self._parts) or "nothing"
            raise ImageMissing(f"The form has no field '{IMAGE_FIELD}'; it has {found}.")
        others = [part for part in self._parts if part is not image]
        fields = {part.name: part.content.decode() for part in others}
        _check_charset(fields.get("_charset_", "utf-8"))
        return Upload(bytes(image.content), image.content_type, fields)

    def _check_names(self) -> None:
        names = [part.name for part in self._parts]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise FormInvalid(f"The form has the field {_shown(repeated)} more than once.")
        files = [part.name for part in self._parts if part.is_file and not part.is_image]
        if files and IMAGE_FIELD in names:
            raise FormInvalid(f"The form has another file, {_shown(files[0])}; one is taken.")

    def _begin_part(self) -> None:
        if len(self._parts) > _MAX_FIELDS:
            raise FormInvalid(f"The form has more than {_MAX_FIELDS} fields beside the image.")
        self._parts.append(_Part())

    def _add_to_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_to_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        name = self._header_name.decode("latin-1").lower()
        self._parts[-1].headers[name] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        part = self._parts[-1]
        disposition, options = parse_options_header(part.headers.get("content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise FormInvalid("The form has a part without a name.")
        part.name = options[b"name"].decode()
        part.is_file = b"filename" in options
        part.content_type, _ = _media_type(
            part.headers.get("content-type", b"application/octet-stream").decode("latin-1")
        )
        if part.is_image:
            _check_image_type(part.content_type, "The form's image")

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        part = self._parts[-1]
        if part.is_image or not part.is_file:
            part.content += data[start:end]
        if not part.is_image and len(part.content) > _MAX_FIELD_BYTES:
            raise FormInvalid(
                f"The form's field {_shown(part.name)} has more than {_MAX_FIELD_BYTES} bytes."
            )

    def _end(self) -> None:
        self._is_whole = True
