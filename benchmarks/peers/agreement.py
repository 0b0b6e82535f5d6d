"""That a peer does the same work: without it, a ratio of times says nothing."""

import httpx
import numpy as np

from benchmarks.images import read_png
from benchmarks.serving import segment

LEAST = 0.999
"""Share of pixels with the same label; where both classes are as probable, floats may differ."""


def require_agreement(ours: httpx.Client, theirs: httpx.Client, body: bytes) -> None:
    """Hold a peer's answer against ours; both are warm after that.

    Raises:
        ValueError: if too many labels differ.
    """
    own, other = (read_png(segment(client, body).content) for client in (ours, theirs))
    share = float((own == other).mean()) if own.shape == other.shape else 0.0
    if not share >= LEAST or np.ptp(own) == 0:
        raise ValueError(f"the peer gives the same label to {share:.4f} of the pixels only")
