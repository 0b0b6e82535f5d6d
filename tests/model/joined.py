"""What proofs of seam-free tiles share: small networks, a whole pass, and tiles that are joined."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from model.architecture import Architecture
from model.geometry import Geometry
from model.tiling import Plan, Region, extract, place
from tests.conftest import graph_of, network_of

Run = Callable[[int, NDArray[Any]], NDArray[Any]]
"""Gives the logits (K, h, w) of a tile (C, H, W) by the network of a depth."""


def small(depth: int) -> Architecture:
    """Give the architecture of the network of a depth."""
    return Architecture(base_channels=2, depth=depth)


@functools.cache
def double_network(depth: int) -> torch.nn.Module:
    return network_of(small(depth)).double()


@functools.cache
def session(depth: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = graph_of(small(depth))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_double(depth: int, pixels: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        logits: torch.Tensor = double_network(depth)(torch.from_numpy(pixels[None]).double())
    return logits[0].numpy()


def run_onnx(depth: int, pixels: NDArray[Any]) -> NDArray[Any]:
    (logits,) = session(depth).run(["logits"], {"tile": pixels[None].astype(np.float32)})
    return logits[0]  # type: ignore[no-any-return]


def whole(run: Run, depth: int, image: NDArray[Any]) -> NDArray[Any]:
    """One pass over the whole image, mirrored around it."""
    geometry = Geometry(depth)
    _, height, width = image.shape
    halo = geometry.halo
    region = Region(-halo, -halo, geometry.edge_for(height) - halo, geometry.edge_for(width) - halo)
    return run(depth, extract(image, region))[:, :height, :width]


def tiled(run: Run, depth: int, image: NDArray[Any], plan: Plan) -> NDArray[Any]:
    outputs = [run(depth, extract(image, tile.input_region)) for tile in plan.tiles]
    canvas = np.full((2, *plan.region.shape), np.nan, outputs[0].dtype)
    for tile, output in zip(plan.tiles, outputs, strict=True):
        place(plan, tile, output, canvas)
    return canvas


def image_of(height: int, width: int) -> NDArray[np.float64]:
    return np.random.default_rng(height * 1009 + width).standard_normal((1, height, width))
