"""Training: a few annotated images in, one ONNX file out."""

import model  # noqa: F401 (first of all: it switches ONNX Runtime's reports off)
