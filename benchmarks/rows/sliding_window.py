"""Ours against MONAI's `SlidingWindowInferer` with torch, and the seams of both.

MONAI cannot tile a network of valid convolutions, so the same weights run with same-padding, as
its users' networks do: roi 512, its default overlap and blending, float32. A seam is the largest
difference of the tiled logits from the same network's pass over the whole image.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.images import sample
from benchmarks.row import Row
from benchmarks.subject import MODEL
from benchmarks.turns import described, in_turns_cold, ratio
from model.network import UNet
from model.planner import TileShapes, plan_tiles
from model.runtime import Runtime
from model.segmentation import DEFAULT_SHAPES, segment
from training.export.parameters import read_parameters

BARS = {512: 1.1, 2048: 1.8}
ROUNDS = {512: 5, 2048: 1}
ROI = 512
WHOLE = TileShapes(1 << 40)
"""Any image is one tile."""
SEAM_BAR = 1e-4

Logits = NDArray[np.float32]


class SamePadded(UNet):
    """The network with same-padding, so that every level keeps its edges."""

    def __init__(self, network: UNet) -> None:
        super().__init__(network.architecture)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.padding = (1, 1)
        self.load_state_dict(network.state_dict())

    def forward(self, tile: Tensor) -> Tensor:
        """Give the logits of (N, C, H, W) at the same height and width."""
        skips, x = [], tile
        depth = self.architecture.depth
        for level in range(depth):
            skips.append(self.contracting[level](x))
            x = self.pooling(skips[-1])
        x = self.contracting[depth](x)
        for level in reversed(range(depth)):
            x = self.expansive[level](torch.cat([skips[level], self.up_convolutions[level](x)], 1))
        logits: Tensor = self.classifier(x)
        return logits


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure time and seams at each size."""
    runtime = Runtime(MODEL, "cpu")
    network = same_padded()
    for edge, rounds in ROUNDS.items():
        image = sample(edge)[np.newaxis]
        pixels = runtime.manifest.intensity.measure(image).apply(image)
        logits: dict[str, Logits] = {}
        contestants = {
            "MONAI": partial(keep, logits, "MONAI", partial(sliding_window, network, pixels)),
            "ours": partial(keep, logits, "ours", partial(ours, runtime, image, DEFAULT_SHAPES)),
        }
        if edge == ROI:
            in_turns_cold(contestants, 1)
        seconds = in_turns_cold(contestants, 1 if quick else rounds)
        yield Row(
            f"MONAI SlidingWindowInferer + torch / ours, {edge}²",
            ratio(seconds, "MONAI", "ours"),
            at_least=BARS[edge],
            says=f"torch, {torch.get_num_threads()} threads: {described(seconds)}",
            numbers={"seconds": seconds},
        )
        theirs = float(np.abs(logits["MONAI"] - whole(network, pixels)).max())
        own = float(np.abs(logits["ours"] - ours(runtime, image, WHOLE)).max())
        tiles, windows = (
            len(plan_tiles((edge, edge), runtime.manifest.architecture, DEFAULT_SHAPES).tiles),
            windows_of(edge) ** 2,
        )
        yield Row(
            f"our seam in the logits, {edge}²",
            own,
            at_most=SEAM_BAR,
            says=f"{tiles} tile(s); largest logit {np.abs(logits['ours']).max():.3g}",
        )
        yield Row(
            f"MONAI's seam in the logits, {edge}²",
            theirs,
            says=f"{windows} window(s); largest logit {np.abs(logits['MONAI']).max():.3g}",
        )


def windows_of(edge: int) -> int:
    """Count MONAI's windows along an axis, at its default overlap of a quarter."""
    return 1 + -(-(edge - ROI) // (ROI * 3 // 4))


def same_padded() -> SamePadded:
    """Build the network with the weights of the artefact."""
    manifest, parameters = read_parameters(MODEL)
    network = UNet(manifest.architecture)
    network.load_state_dict(parameters)
    return SamePadded(network).eval()


def keep(logits: dict[str, Logits], name: str, run: Callable[[], Logits]) -> None:
    """Run a contestant, and keep what it gave."""
    logits[name] = run()


def ours(runtime: Runtime, image: NDArray[np.uint8], shapes: TileShapes) -> Logits:
    """Give our logits (K, H, W)."""
    return segment(image, runtime, shapes, output="logits")


def sliding_window(network: SamePadded, pixels: Logits) -> Logits:
    """Give MONAI's logits (K, H, W)."""
    from monai.inferers import SlidingWindowInferer  # the peer's own import takes seconds

    inferer = SlidingWindowInferer(roi_size=(ROI, ROI))
    with torch.inference_mode():
        logits: Tensor = inferer(torch.from_numpy(pixels)[None], network)  # type: ignore[assignment]  # of one output
    return logits[0].numpy()


def whole(network: SamePadded, pixels: Logits) -> Logits:
    """Give the logits (K, H, W) of one pass over the image."""
    with torch.inference_mode():
        logits: Tensor = network(torch.from_numpy(pixels)[None])
    return logits[0].numpy()
