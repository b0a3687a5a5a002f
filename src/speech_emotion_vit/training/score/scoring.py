"""Scoring: a network's logits on rows, with the work shared by all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...model.build import Network
from ..data.rows import Rows, restrict
from .metrics import (
    Floats,
    confusion_matrix,
    mean_probabilities,
    negative_log_likelihood,
    unweighted_average_recall,
    weighted_accuracy,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

SCORE_BATCH = 128  # rows that are scored at once

Record = dict[str, float]


@torch.no_grad()
def score_rows(network: Network, rows: Rows, accelerator: Accelerator | None = None) -> Floats:
    """Return the logits `[rows, classes]` of a network in eval mode, the work shared by all processes.

    Those of classes that a row cannot have are as good as minus infinity.
    """
    logits = torch.zeros(len(rows), network.config.num_classes, device=rows.device)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    for batch in rows.by_length(SCORE_BATCH)[rank::world]:
        index = torch.from_numpy(batch).to(rows.device)
        logits[index] = restrict(network.head(network.embed(rows.images(batch))).float(), rows.possible(batch))
    if accelerator is not None and world > 1:
        logits = accelerator.reduce(logits, reduction="sum")
    return logits.double().cpu().numpy()


def validation_record(logits: Floats, rows: Rows) -> Record:
    """Return WA, UA and negative log likelihood of the clips of `rows`."""
    probabilities = mean_probabilities(logits, rows.owners)
    confusion = confusion_matrix(rows.clip_targets, probabilities.argmax(axis=1), logits.shape[1])
    return {
        "validation_wa": weighted_accuracy(confusion),
        "validation_ua": unweighted_average_recall(confusion),
        "validation_nll": negative_log_likelihood(rows.clip_targets, probabilities),
    }
