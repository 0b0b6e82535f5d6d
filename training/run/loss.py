"""The weighted loss of a pixel-wise softmax."""

from torch import Tensor
from torch.nn import functional


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, total_weight: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the softmax over the classes, weighted pixel by pixel.

    The paper sums over the tile; the sum of the weights is divided out here, so that neither the
    size of the tile nor the weights change what a learning rate means.

    Args:
        logits: (N, K, H, W) float.
        labels: (N, H, W) int64 class ids.
        weights: (N, H, W) float.
        total_weight: Sum of the weights of the whole batch, where this is a part of it.

    Returns:
        A scalar.

    Source: Ronneberger et al. 2015, eq. 1.
    """
    losses = functional.cross_entropy(logits.float(), labels, reduction="none")
    total = weights.sum() if total_weight is None else total_weight
    return (losses * weights).sum() / total.clamp(min=1e-6)
