"""A BentoML service around the ONNX file.

bentoml serve benchmarks.peers.bentoml_service:Segment
"""

from pathlib import Path
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.peers.solver import open_solver


@bentoml.service(traffic={"timeout": 600})
class Segment:
    """An image in, a PNG of labels out."""

    def __init__(self) -> None:
        self.solve = open_solver()

    @bentoml.api  # type: ignore[untyped-decorator]  # it is installed where it runs
    def segment(
        self, image: Annotated[Path, ContentType("image/*")]
    ) -> Annotated[bytes, ContentType("image/png")]:
        """Segment."""
        return self.solve(image.read_bytes())
