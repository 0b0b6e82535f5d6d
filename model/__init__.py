"""The network and its geometry: what training and serving share."""

import os
import sys

# ONNX Runtime 1.29 and later reports its use over the network unless this is set before it is
# imported. Images, and the fact that somebody looks at them, stay on this machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO does so, by a package of its own, when it is imported; without that package it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as Python documents
