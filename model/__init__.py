"""The network and its geometry: what training and serving share."""

import os

# ONNX Runtime 1.29 and later reports its use over the network unless this is set before it is
# imported. Images, and the fact that somebody looks at them, stay on this machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
