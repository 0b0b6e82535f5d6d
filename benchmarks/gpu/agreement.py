"""Whether what a GPU gives agrees with the CPU: its labels may differ where two classes tie."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artefact import Manifest

TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2}
"""How far a logit may be off, relative to the largest of the image, or to 1 if that is smaller: a
pixel whose label hangs on less is a tie."""


def agreement(
    manifest: Manifest,
    exact: NDArray[np.float32],
    found: NDArray[np.float32],
    labels: NDArray[np.uint8],
    precision: str,
) -> dict[str, Any]:
    """Hold logits (K, h, w) and labels (h, w) of a GPU against the logits of the CPU.

    Args:
        manifest: How labels are decided.
        exact: The logits of the CPU.
        found: Those of the GPU.
        labels: What the GPU decided for by itself.
        precision: What it computed in.
    """
    bar = TOLERANCES[precision] * max(1.0, float(np.abs(exact).max()))
    differ = manifest.decide(exact) != labels
    ties = distance_to_another_label(manifest, exact) <= 2 * bar
    error = float(np.abs(exact - found).max())
    return {
        "logits_differ": error,
        "tolerance": bar,
        "labels_differ": int(differ.sum()),
        "off_ties": int((differ & ~ties).sum()),
        "agrees": bool(error <= bar and not (differ & ~ties).any()),
    }


def distance_to_another_label(
    manifest: Manifest, logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Say of every pixel (h, w) by how much its decisive difference of logits clears the bar."""
    if manifest.margin is not None:
        return np.asarray(np.abs(logits[1] - logits[0] - manifest.margin))
    ordered = np.sort(logits, axis=0)
    nearest: NDArray[np.float32] = ordered[-1] - ordered[-2]
    return nearest
