"""What each score says, for people who do not know it."""

import re
from collections.abc import Mapping

HINTS: Mapping[str, str] = {
    "v_rand": "Are pixels of one cell kept together, and those of two cells apart? Mergers of "
    "large cells cost the most; the exact place of a border does not matter.",
    "v_info": "The same question, asked in bits: small cells count for more than in V_rand.",
    "v_rand_best": "If the threshold were chosen on these very images: a bound, not a result.",
    "v_info_best": "V_info at that threshold.",
    "warping_error": "Share of pixels where cells are merged, split, lost or invented; a border "
    "that is only shifted is forgiven.",
    "seg": "Mean overlap (Jaccard) of each object with the one that covers most of it; 0 if none "
    "does.",
    "ap50": "Of all objects, annotated or found, the share that agree: found once, and overlapping "
    "by at least half.",
    "ap60": "The same, where more overlap is asked for: outlines must be better.",
    "ap70": "More still.",
    "ap80": "Outlines must be close to what was drawn.",
    "ap90": "Outlines must be all but those that were drawn.",
    "ap": "Mean over these five.",
    "ap50_by_image": "Each image counts the same, however many objects it has.",
    "f1": "Between the share of objects found and the share of findings that are objects.",
    "pq": "F1 times the mean overlap of the objects that agree.",
    "pixel_error": "Share of pixels whose class is wrong. It does not see merged cells.",
    "iou": "Shared area over joint area of what is drawn and what is found. It does not see merged "
    "cells.",
    "dice": "IoU on another scale; always the higher of the two.",
    "boundary_f1": "Share of outlines that lie within 2 px of each other.",
    "hausdorff_95": "Outlines lie no farther apart than this, but for 5% of them.",
    "calibration_error": "How far probabilities lie from how often they are right, on average.",
}
ERRORS = ("warping_error", "pixel_error", "hausdorff_95", "calibration_error")
"""Scores that are better the lower they are."""


def hint(name: str) -> str:
    """Say what a score is, by its name in `Evaluation.scores`."""
    return HINTS[base_of(name)]


def lower_is_better(name: str) -> bool:
    """Tell errors from scores."""
    return base_of(name) in ERRORS


def base_of(name: str) -> str:
    """Give the name of a score without the number of its class."""
    return name if name in HINTS else re.sub(r"_\d+$", "", name)
