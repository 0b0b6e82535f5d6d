"""How parameters move: the optimiser, its learning rate, and their running mean."""

import math

import torch
from torch import nn

from training.settings import FitSettings

MOMENTUM = 0.99
"""Source: Ronneberger et al. 2015, section 3."""
AVERAGED_SHARE, MOST_AVERAGED_STEPS = 0.1, 1000
"""The parameters that are validated and kept are a running mean over this share of the steps."""
MOST_STEPS_BETWEEN = 10
"""The mean takes in the parameters of a step in so many at least, twenty times over its length."""


def build_optimiser(network: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """AdamW, or the paper's stochastic gradient descent with high momentum."""
    if settings.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), lr=0.0, momentum=MOMENTUM)
    return torch.optim.AdamW(network.parameters(), lr=0.0, fused=True)


def learning_rate(step: int, steps: int, highest: float, warmup: int) -> float:
    """Rise linearly over the warm-up, then fall along a cosine, to 0 after the last step."""
    warmup = min(warmup, steps)
    if step < warmup:
        return highest * (step + 1) / warmup
    share = (step - warmup) / max(steps - warmup, 1)
    return highest * (1 + math.cos(math.pi * share)) / 2


def averaged_every(steps: int) -> int:
    """Give the steps between two that the running mean takes in, for a run of so many."""
    return max(min(int(_horizon(steps)) // 20, MOST_STEPS_BETWEEN), 1)


def average_decay(steps: int) -> float:
    """Give what the running mean keeps of itself when it takes in the parameters of a step."""
    return 1 - averaged_every(steps) / _horizon(steps)


def _horizon(steps: int) -> float:
    return min(max(AVERAGED_SHARE * steps, 1.0), MOST_AVERAGED_STEPS)
