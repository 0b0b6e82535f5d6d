"""What a graph scores where a runtime computes it in fewer bits, as far as this machine can."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.artefact import Manifest, PrecisionScore
from model.errors import DeviceError
from model.sessions import Session, processor
from model.sessions.openvino import OpenvinoSession
from training.data.dataset import AnnotatedImage
from training.evaluate import Evaluation, evaluate

Precisions = dict[Literal["bf16"], PrecisionScore]


@dataclass(frozen=True, slots=True)
class Computed:
    """An artefact in a session that the service would not take before there are scores."""

    manifest: Manifest
    session: Session

    def run(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Give the logits (N, K, H − 2·halo, W − 2·halo) of a batch of tiles (N, C, H, W)."""
        return self.session.run(tiles)


def measure_precisions(
    path: Path, manifest: Manifest, exact: Evaluation, validation: Sequence[AnnotatedImage]
) -> Precisions:
    """Score an artefact in bfloat16 on the images that it was scored on in float32.

    Args:
        path: The artefact.
        manifest: Its manifest, with threshold and rule.
        exact: Its evaluation in float32.
        validation: The images of that evaluation.

    Returns:
        Nothing where this machine cannot compute in it, so that no score is made up.
    """
    session = None if manifest.precision == "int8" else open_in_bfloat16(path, manifest)
    if session is None:
        return {}
    (name, wanted), (_, found) = exact.main, evaluate(Computed(manifest, session), validation).main
    if not (math.isfinite(wanted) and math.isfinite(found)):
        return {}
    return {"bf16": PrecisionScore(score=name, fp32=wanted, this=found)}


def open_in_bfloat16(path: Path, manifest: Manifest) -> Session | None:
    """Open an artefact in bfloat16; None where the processor or OpenVINO is without it."""
    if not processor.computes_in(processor.BFLOAT16):
        return None
    try:
        session = OpenvinoSession(path, path.read_bytes(), manifest.geometry, precision="bf16")
    except DeviceError:
        return None
    return session if session.precision == "bf16" else None
