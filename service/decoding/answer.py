"""What a child may say: the pixels are there, or the image is not one that is read."""

from typing import Literal

from pydantic import BaseModel, TypeAdapter

from model.errors import ImageError, ImagePagesRefused, ImageUnreadable, ImageValuesInvalid

MAX_ANSWER_BYTES = 2**16

REFUSALS: dict[str, type[ImageError]] = {
    kind.code: kind for kind in (ImageUnreadable, ImagePagesRefused, ImageValuesInvalid)
}


class Decoded(BaseModel, strict=True, extra="forbid", frozen=True):
    """The pixels lie in the shared memory. How many there are, the header has said."""

    dtype: Literal["uint8", "uint16", "int8", "int16", "float32"]


class Refused(BaseModel, strict=True, extra="forbid", frozen=True):
    """The image cannot be decoded."""

    code: Literal["image-unreadable", "image-pages-refused", "image-values-invalid"]
    message: str

    @property
    def error(self) -> ImageError:
        """The error that the child met."""
        return REFUSALS[self.code](self.message)


Answer = Decoded | Refused

ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)
