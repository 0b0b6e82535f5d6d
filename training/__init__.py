"""Training: a few annotated images in, one ONNX file out."""
