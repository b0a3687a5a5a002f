"""Losses: means over the batch, as pure functions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ..data.rows import restrict


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of `logits` `[batch, classes]` against probabilities `targets` `[batch, classes]`.

    Args:
        logits: of the network.
        targets: one-hot.
        label_smoothing: share of the target spread evenly over all classes.
        class_weights: `[classes]`, mean 1; None for equal ones.
        mask: which classes each clip can have `[batch, classes]`; its target is spread over these; None: all.
    """
    if mask is not None:
        shares = mask / mask.sum(dim=1, keepdim=True)
        targets = targets.lerp(shares.to(targets.dtype), label_smoothing)
        return functional.cross_entropy(restrict(logits.float(), mask), targets, weight=class_weights)
    return functional.cross_entropy(logits.float(), targets, weight=class_weights, label_smoothing=label_smoothing)


def feature_distance(embedding: Tensor, reference: Tensor) -> Tensor:
    """Return the mean absolute difference (L1) of features `[batch, dim]`: the paper's feature-map matching."""
    return (embedding.float() - reference.float()).abs().mean()


def soft_cross_entropy(logits: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """Return the cross-entropy of softened `logits` against softened probabilities, both `[batch, classes]`.

    Hinton et al., Distilling the Knowledge in a Neural Network, 2015; scaled by the squared temperature, so that
    gradients keep their size.
    """
    return functional.cross_entropy(logits.float() / temperature, wanted) * temperature**2
