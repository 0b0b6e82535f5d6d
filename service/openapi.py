"""What `/docs` says that cannot be read off the routes' signatures."""

from typing import Any

from service.errors import MEDIA_TYPE
from service.schemas import Problem, SegmentAnswer

DESCRIPTION = """An image of any size in, a mask of the same size out, without seams.

Every answer has a `Server-Timing`, with its total at least, and an `X-Request-ID` that the log has
too: the request's own, if it is 1 to 64 characters of `[A-Za-z0-9._-]`, else a new one.
"""

_DIGEST = "0ab5bca74944902aa61d8b4d488ab9f82f0feed97b138f5cce3b670a84e39ac6"

_FILE = {"type": "string", "format": "binary"}

_PROBLEM = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"content": _PROBLEM, "description": "What was found, and what to do about it."},
    "5XX": {"content": _PROBLEM, "description": "A fault of the service, or no room for now."},
}

SEGMENT_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "description": (
                "`wait=` and whole seconds (RFC 7240): how long you wait for the answer. What "
                "would take longer is refused before it costs work: with 429 and `Retry-After`, or "
                "with 422 if it would take longer even alone. What does take longer ends with 504."
            ),
            "schema": {"type": "string", "examples": ["wait=30"]},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {**_FILE, "description": "PNG, JPEG or TIFF."}},
                }
            },
            **{name: {"schema": _FILE} for name in ("image/png", "image/jpeg", "image/tiff")},
        },
    },
}

SEGMENT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": SegmentAnswer,
        "description": (
            "The label map: an indexed PNG whose pixels are class ids, or COCO run-length "
            "encoding, one segment a class. With `output=instances`, the objects: a 16-bit grey "
            "PNG whose pixels are their ids, from 1, or one segment an object; by the rule of the "
            "model's manifest or, where it has none, the components of every class but class 0. "
            "`Server-Timing` says where the time went, `X-Averaging` and the like what was done."
        ),
        "content": {
            "image/png": {"schema": _FILE},
            "application/json": {
                "example": {
                    "model": {
                        "name": "em-membranes",
                        "sha256": _DIGEST,
                        "provider": "cpu",
                        "device": "cpu",
                        "precision": "fp32",
                    },
                    "output": "labels",
                    "averaging": "none",
                    "size": [2, 3],
                    "segments": [
                        {
                            "id": 0,
                            "class": "membrane",
                            "area": 2,
                            "bbox": [0, 0, 1, 2],
                            "rle": {"size": [2, 3], "counts": "024"},
                        },
                        {
                            "id": 1,
                            "class": "cell",
                            "area": 4,
                            "bbox": [1, 0, 2, 2],
                            "rle": {"size": [2, 3], "counts": "24"},
                        },
                    ],
                    "timings": {
                        "upload_ms": 0.9,
                        "decode_ms": 2.1,
                        "queue_ms": 0.2,
                        "inference_ms": 271.5,
                        "decide_ms": 0.0,
                        "encode_ms": 1.3,
                    },
                },
            },
        },
    }
}
