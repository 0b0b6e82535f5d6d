"""Test-time averaging: an image in all its rotations and mirrors, whose probabilities are averaged.

Each turned image is segmented as a whole image is, and what comes of it is turned back. Quarter
turns and mirrors move pixels and change none, so that there are eight and no interpolation. Images
and canvases are turned as views: a pass takes no memory of its own.

Source: Ronneberger et al. 2015, section 4 (averages over 7 rotated versions).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artefact import Averaging, Manifest
from model.planner import TileShapes, plan_tiles
from model.segmentation import Model, Output, Segmentation

PASSES: Mapping[Averaging, int] = {"none": 1, "rotations": 8}
"""How often each pixel of an image is segmented."""


def begin(
    image: NDArray[Any],
    manifest: Manifest,
    shapes: TileShapes,
    *,
    averaging: Averaging,
    output: Output,
) -> tuple[Segmentation, ...]:
    """Prepare an image (C, H, W) for as many passes as the averaging takes.

    They share one canvas, full when all have written their
    tiles; the first pass has it upright.

    Args:
        image: The whole image.
        manifest: The model's manifest.
        shapes: Input shapes that a tile may have.
        averaging: Whether the image is also turned and mirrored.
        output: What the canvas holds; only probabilities can be averaged.

    Raises:
        ValueError: Labels or logits are to be averaged.
    """
    upright = Segmentation.begin(image, manifest, shapes, output=output)
    if averaging == "none":
        return (upright,)
    if output not in ("probabilities", "foreground"):
        raise ValueError(f"only probabilities can be averaged; found {output}")
    turned = zip(_orientations(upright.image), _orientations(upright.canvas), strict=True)
    return tuple(
        replace(
            upright,
            image=pixels,
            plan=plan_tiles(pixels.shape[1:], manifest.architecture, shapes),
            canvas=canvas,
            passes=PASSES[averaging],
        )
        for pixels, canvas in turned
    )


def probabilities(
    image: NDArray[Any], model: Model, shapes: TileShapes, averaging: Averaging
) -> NDArray[np.float32]:
    """Give the probabilities (K, H, W) of an image (C, H, W), averaged over all passes."""
    passes = begin(image, model.manifest, shapes, averaging=averaging, output="probabilities")
    for work in passes:
        work.complete(model)
    return passes[0].canvas


def _orientations(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Give the eight views of an array (..., H, W), itself first."""
    for turns in range(4):
        turned = np.rot90(array, turns, axes=(-2, -1))
        yield turned
        yield turned[..., ::-1]
