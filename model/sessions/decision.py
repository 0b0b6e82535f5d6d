"""The manifest's decision as a part of the graph, so that it is made where the logits are.

What is given here is written behind a serialised graph with the output `logits` (N, K, h, w)
float32, and adds the output `labels` (N, h, w) uint8: those of `Manifest.decide`.
"""

import numpy as np

from model.artefact import Manifest
from model.sessions.graph import GRAPH, UINT8, node, output, scalar
from model.sessions.protobuf import message


def decision(manifest: Manifest) -> bytes:
    """Encode a manifest's decision, to be written behind its graph."""
    nodes = _largest() if manifest.margin is None else _at_least(manifest.margin)
    return message((GRAPH, message(*nodes, output("labels", UINT8, rank=3))))


def _largest() -> list[tuple[int, bytes]]:
    return [
        node("ArgMax", ["logits"], "decision.class", axis=1, keepdims=0),
        node("Cast", ["decision.class"], "labels", to=UINT8),
    ]


def _at_least(margin: np.float32) -> list[tuple[int, bytes]]:
    return [
        scalar("decision.0", np.int64(0)),
        scalar("decision.1", np.int64(1)),
        scalar("decision.margin", margin),
        node("Gather", ["logits", "decision.0"], "decision.background", axis=1),
        node("Gather", ["logits", "decision.1"], "decision.foreground", axis=1),
        node("Sub", ["decision.foreground", "decision.background"], "decision.difference"),
        node("GreaterOrEqual", ["decision.difference", "decision.margin"], "decision.above"),
        node("Cast", ["decision.above"], "labels", to=UINT8),
    ]
