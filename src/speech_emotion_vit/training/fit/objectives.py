"""What stages minimise: each maps a batch to a dict of losses, whose sum it is. One loop runs them all.

=================== ================================================ ==================================
``teacher``         `Supervised`                                     cross-entropy
``match``           `FeatureMatching`                                L1 to the teacher's feature
``student``         `Distillation`                                   cross-entropy + alpha L1
``frames``          `frames.FrameMatching`                           L1 to a speech encoder's tokens
=================== ================================================ ==================================

What a teacher says is computed before the stage begins and handed over as numbers: nothing can train it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...model.build import Network
from ..data.rows import Indices, Rows, restrict

STEM_PIECE = 4  # images: what the paper's stem makes of more, 4 MiB each and layer, does not fit a processor's cache


class Batch(NamedTuple):
    """What a stage sees of labelled clips; tensors on one device."""

    inputs: tuple[Tensor, ...]
    """What the network's `embed` takes."""
    targets: Tensor
    """Classes `[batch]`."""
    mask: Tensor | None
    """Which classes each clip can have `[batch, classes]`; None: all can have all."""
    reference: Tensor | None
    """What the features are to be `[batch, dim]`; None: that is not learnt."""


class Supervised(nn.Module):
    """Cross-entropy of a network.

    Args:
        network: what is trained.
        rows: what it learns from.
        reference: features `[rows, dim]` for a stage that matches them.
    """

    def __init__(self, network: Network, rows: Rows, *, reference: Tensor | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        self.rows = rows
        self.reference = reference
        # No norm of that stem looks at the batch, so gradients of pieces add up to those of the whole.
        piecewise = getattr(network.config, "stem", None) == "conv6" and rows.device.type == "cpu"
        self.piece = STEM_PIECE if piecewise else len(rows)

    def batches(self, size: int, rng: np.random.Generator) -> list[Indices]:
        """Return all rows once, in batches of nearly equal size whose rows are of similar length."""
        return self.rows.shuffled(size, rng)

    def batch(self, rows: Indices, seed: int) -> Batch:
        """Return what is learnt from some rows."""
        reference = self.reference
        return Batch(
            inputs=self.rows.inputs(rows, seed),
            targets=torch.from_numpy(self.rows.targets[rows]).to(self.rows.device),
            mask=self.rows.mask(rows),
            reference=None if reference is None else reference[torch.from_numpy(rows)].to(self.rows.device),
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        return {"cross_entropy": self._cross_entropy(self.network.embed(*batch.inputs), batch)}

    def _cross_entropy(self, embedding: Tensor, batch: Batch) -> Tensor:
        logits = restrict(self.network.head(embedding).float(), batch.mask)
        return functional.cross_entropy(logits, batch.targets)


class FeatureMatching(Supervised):
    """L1 distance of the network's feature to a teacher's; its head is not trained."""

    def __init__(self, network: Network, rows: Rows, reference: Tensor) -> None:
        super().__init__(network, rows, reference=reference)
        network.head.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        return {"matching": feature_distance(self.network.embed(*batch.inputs), batch.reference)}


class Distillation(Supervised):
    """Cross-entropy and L1 to a teacher's feature.

    Args:
        network: the student.
        rows: what it learns from.
        reference: the teacher's features `[rows, dim]`.
        alpha: weight of the L1 distance.
    """

    def __init__(self, network: Network, rows: Rows, reference: Tensor, *, alpha: float) -> None:
        super().__init__(network, rows, reference=reference)
        self.alpha = alpha

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        embedding = self.network.embed(*batch.inputs)
        return {
            "cross_entropy": self._cross_entropy(embedding, batch),
            "matching": self.alpha * feature_distance(embedding, batch.reference),
        }


def feature_distance(embedding: Tensor, reference: Tensor | None) -> Tensor:
    """Return the mean absolute difference (L1) of features `[batch, dim]`: the paper's feature-map matching."""
    assert reference is not None
    return (embedding.float() - reference.float()).abs().mean()
