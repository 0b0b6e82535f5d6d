"""A plain FastAPI service around torch: `uvicorn benchmarks.peers.torch_service:app`.

Its handler is a coroutine that computes, as many are; so requests run one after the other, and do
not take the cores from each other.
"""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from fastapi import FastAPI, File, Response
from numpy.typing import NDArray

from benchmarks.peers import paper
from model.network import UNet
from training.export.parameters import read_parameters

manifest, parameters = read_parameters(Path(os.environ["BENCH_MODEL"]))
network = UNet(manifest.architecture).eval()
network.load_state_dict(parameters)
threshold = manifest.decision_threshold or 0.5
app = FastAPI()


def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the logits of tiles."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(torch.from_numpy(tiles)).numpy()
    return logits


@app.get("/health")
async def health() -> None:
    """Answer."""


@app.post("/segment")
async def segment(image: Annotated[bytes, File()]) -> Response:
    """Give the label map of an image as PNG."""
    return Response(paper.answer(image, run, threshold), media_type="image/png")
