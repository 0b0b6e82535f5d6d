"""Scores of segmentations against their annotation, each with its definition and source.

- `partition`: V_rand and V_info, at one threshold and over a sweep
- `warping`: the warping error
- `objects`: SEG, average precision, F1, panoptic quality
- `masks`: pixel error, IoU, Dice, boundary F1, Hausdorff distance
- `calibration`: expected calibration error and its table
- `tally`: all of them of one image, and of many; `bootstrap`: their intervals
- `evaluation`, `table`: what an artefact is told by, and how people read it
"""

from training.metrics.masks import BestOverlap, mean_iou, sweep_overlap
from training.metrics.partition import BestThreshold, sweep_thresholds

__all__ = [
    "BestOverlap",
    "BestThreshold",
    "mean_iou",
    "sweep_overlap",
    "sweep_thresholds",
]
