"""The arithmetic of convolutions: bfloat16 where the plan says so, float32 otherwise."""

import torch

from training.settings import Compute


def arithmetic(device: torch.device, compute: Compute) -> torch.autocast:
    """Let the convolutions inside of this context compute in bfloat16, if that is the plan."""
    return torch.autocast(device.type, torch.bfloat16, enabled=compute == "bfloat16")
