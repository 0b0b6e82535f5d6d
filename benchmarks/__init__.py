"""Side-by-side measurements: ratios from one run, never a timed test."""

import model  # noqa: F401 (first of all: it switches ONNX Runtime's reports off)
