"""What is measured: the model, as it is shipped."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "model" / "pretrained" / "em-membranes.onnx"
"""1 channel, 32 base channels, depth 4."""
