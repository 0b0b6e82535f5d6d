"""The report of a run: one page that needs no other file, for whoever annotated the images.

page        the whole of it
├── scores      the main score, the table, the scores of each image
├── examples    the worst images, the median and the best
│   ├── fates       what became of each object
│   ├── painting    objects, classes and errors as layers
│   └── pictures    arrays to data URIs
├── curves      loss, score and learning rate over the steps
├── calibration the reliability diagram
│   └── charts      axes, ticks and marks as SVG
└── record      the plan with its reasons, and what the file says of itself
"""

from training.report.page import write_report

__all__ = ["write_report"]
