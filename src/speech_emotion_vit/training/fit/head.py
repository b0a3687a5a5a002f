"""A new head for a network that stays as it is, fitted to embeddings: ridge regression, or a hidden layer.

A few hundred clips of a few speakers are too little to move millions of weights, but enough for a plane between them.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...errors import DatasetError
from ...model.build import Network
from ..data.rows import Indices, Rows, restrict
from ..recipes import HeadStage
from ..score.evaluate import SCORE_BATCH, Record, validation_record
from ..score.metrics import fit_temperature
from .loop import seed_of
from .perceptron import train_perceptron

if TYPE_CHECKING:
    from accelerate import Accelerator

INNER_FOLDS = 5  # at most: what is left out in turn to choose among the penalties and to calibrate
FEWEST_CLIPS = 3  # of the most frequent label, else nothing can be left out

Head = tuple[Tensor, Tensor]

logger = logging.getLogger(__name__)


@torch.no_grad()
def embed_rows(network: Network, rows: Rows, *, accelerator: Accelerator | None = None) -> Tensor:
    """Return the embeddings `[rows, embedding_dim]` of all rows by a network in eval mode, on the CPU.

    Args:
        network: on the device of `rows`.
        rows: what to embed.
        accelerator: whose processes share the work; None: this one does it all.
    """
    found = torch.zeros((len(rows), network.config.embedding_dim), device=rows.device)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    for batch in tqdm(rows.by_length(SCORE_BATCH)[rank::world], desc="embeddings", leave=False, disable=None):
        found[torch.from_numpy(batch).to(rows.device)] = network.embed(*rows.inputs(batch)).float()
    if accelerator is not None and world > 1:
        found = accelerator.reduce(found, reduction="sum")
    return found.cpu()


def fit_head(
    network: Network,
    train: Rows,
    left_out: npt.ArrayLike,
    settings: HeadStage,
    seed: int,
    *,
    embeddings: Tensor | None = None,
) -> Record:
    """Fit the head of `network` in place, all else as it is, and return the record of what was done.

    Penalty and temperature are chosen on training clips that are left out in turn, so none is kept from training. The
    head that is left answers in calibrated logits: its temperature is 1.

    Args:
        network: on the device of `train`; its head is replaced.
        train: what the head is fitted to.
        left_out: names of what is left out together, of the clips of `train` `[clips]`: their speakers, for new voices.
        settings: how it is fitted.
        seed: of a hidden layer.
        embeddings: of `train` by `network` `[rows, embedding_dim]`; None: they are computed.

    Raises:
        DatasetError: a class has no training clip, or too few clips are there to leave some out.
    """
    started = time.monotonic()
    classes = network.config.num_classes
    counts = np.bincount(train.targets, minlength=classes)
    if not counts.all():
        raise DatasetError(f"the training clips have {np.count_nonzero(counts)} of {classes} labels: add the others")
    if np.bincount(train.clip_targets).max() < FEWEST_CLIPS:
        raise DatasetError(f"no label has {FEWEST_CLIPS} training clips, too few to leave some out: add clips")
    network.eval()
    plain = embed_rows(network, train) if embeddings is None else embeddings
    weights = balanced_weights(train)
    spread, centre = plain.std(dim=0, correction=0), (weights[:, None] * plain).mean(dim=0)
    spread[spread < 1e-6] = 1.0  # what never changes tells nothing
    plain = (plain - centre) / spread
    folds = inner_folds(train, np.asarray(left_out))
    logger.info(
        "head: %d clips, %d of them left out in turn %d times", len(train.clip_targets), *_left_out(train, folds)
    )
    fit = _fit_ridge if isinstance(network.head, nn.Linear) else _fit_perceptron
    record = fit(network.head, plain, train, weights, folds, settings, seed)
    layers: list[Any] = [each for each in network.head.modules() if isinstance(each, nn.Linear)]
    with torch.no_grad():
        weight = layers[0].weight.double() / spread
        layers[0].weight.copy_(weight)
        layers[0].bias.sub_((weight @ centre.double()).float())
        for values in (layers[-1].weight, layers[-1].bias):
            values.div_(record["temperature"])
    return {"clips": len(train.clip_targets), **record, "seconds": time.monotonic() - started}


def _fit_ridge(
    head: Any, plain: Tensor, train: Rows, weights: Tensor, folds: Indices, settings: HeadStage, seed: int
) -> Record:
    targets = nn.functional.one_hot(torch.from_numpy(train.targets), head.out_features).float()
    sums = [RidgeSums(plain.shape[1], head.out_features) for _ in range(folds.max() + 1)]
    for fold, part in enumerate(sums):
        part.add(plain[folds == fold], targets[folds == fold], weights[folds == fold])
    penalty, record = best_penalty(sums, folds, plain, train, settings.penalties)
    ((_, (weight, bias)),) = ridge_heads(sums, [penalty])
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return {"penalty": penalty, **record}


def _fit_perceptron(
    head: Any, plain: Tensor, train: Rows, weights: Tensor, folds: Indices, settings: HeadStage, seed: int
) -> Record:
    targets, mask = torch.from_numpy(train.targets), train.mask(np.arange(len(train)))
    mask = None if mask is None else mask.cpu()

    def fit(rows: Indices, name: str) -> None:
        known = None if mask is None else mask[rows]
        train_perceptron(
            head, plain[rows], targets[rows], weights[rows], known, settings.dropout, seed_of(seed, "head", name)
        )

    answers = np.zeros((len(train), head[2].out_features))
    for fold in range(folds.max() + 1):
        fit(np.flatnonzero(folds != fold), f"fold {fold}")
        with torch.no_grad():
            answers[folds == fold] = head(plain[folds == fold]).numpy()
    fit(np.arange(len(train)), "all")
    return calibrated(answers, train)


def _left_out(train: Rows, folds: Indices) -> tuple[int, int]:
    return len(train.clip_targets) // (int(folds.max()) + 1), int(folds.max()) + 1


def best_penalty(
    sums: Sequence[RidgeSums], folds: Indices, plain: Tensor, train: Rows, penalties: Sequence[float]
) -> tuple[float, Record]:
    """Return the penalty of the likeliest answers to what is left out in turn, with what `calibrated` says of them."""
    answers = {penalty: np.zeros((len(train), sums[0].classes)) for penalty in penalties}
    for fold in tqdm(range(len(sums)), desc="clips left out", leave=False, disable=None):
        unseen = folds == fold
        for penalty, (weight, bias) in ridge_heads([part for part in sums if part is not sums[fold]], penalties):
            answers[penalty][unseen] = (plain[unseen].double() @ weight.T + bias).numpy()
    # By likelihood, because the recall of a few hundred clips jumps about from one penalty to the next.
    found = [(penalty, calibrated(values, train)) for penalty, values in answers.items()]
    return min(found, key=lambda each: each[1]["left_out_nll"])


def calibrated(answers: npt.NDArray[np.float64], train: Rows) -> Record:
    """Return the temperature of answers to clips that were left out, logits `[rows, classes]`, and their scores."""
    mask = train.mask(np.arange(len(train)))
    values = restrict(torch.from_numpy(answers), None if mask is None else mask.cpu()).numpy()
    temperature = fit_temperature(values, train.owners, train.clip_targets)
    scores = validation_record(values / temperature, train)
    return {
        "temperature": temperature,
        "left_out_ua": scores["validation_ua"],
        "left_out_nll": scores["validation_nll"],
    }


def balanced_weights(rows: Rows) -> Tensor:
    """Return weights `[rows]`, 1 in the mean, by which every label of every corpus weighs the same."""
    corpora = np.unique([clip.corpus for clip in rows.utterances], return_inverse=True)[1][rows.owners]
    cell = corpora * (int(rows.targets.max()) + 1) + rows.targets
    weights = 1.0 / np.bincount(cell)[cell]
    return torch.from_numpy(weights / weights.mean()).float()


def inner_folds(train: Rows, left_out: npt.NDArray[np.str_]) -> Indices:
    """Return which rows are left out together, by the names of their clips: numbers `[rows]` from 0."""
    from sklearn.model_selection import StratifiedGroupKFold

    names = np.unique(left_out, return_inverse=True)[1]
    if len(set(names)) < FEWEST_CLIPS:
        names = np.arange(len(names))  # too few voices to leave one out
    number = min(INNER_FOLDS, len(set(names)), int(np.bincount(train.clip_targets).max()))
    groups = names[train.owners]
    folds: Indices = np.empty(len(groups), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label with fewer clips than folds is not in each of them
        for fold, (_, part) in enumerate(StratifiedGroupKFold(number).split(groups, train.targets, groups)):
            folds[part] = fold
    return folds


class RidgeSums:
    """Weighted sums over embeddings and targets: all that ridge regression needs to know of its data."""

    def __init__(self, dim: int, classes: int) -> None:
        self.classes = classes
        shapes: tuple[tuple[int, ...], ...] = ((), (dim,), (classes,), (dim, dim), (dim, classes))
        self.values = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]

    def add(self, embeddings: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Take in rows `[rows, dim]`, their targets `[rows, classes]` and their weights `[rows]`."""
        weighted = embeddings * weights[:, None]
        more = (
            weights.sum(),
            weighted.sum(dim=0),
            targets.T @ weights,
            weighted.T @ embeddings,
            weighted.T @ targets,
        )
        for value, addend in zip(self.values, more, strict=True):
            value += addend


def ridge_heads(sums: Sequence[RidgeSums], penalties: Sequence[float]) -> Iterator[tuple[float, Head]]:
    """Yield, for every penalty, weight `[classes, dim]` and bias `[classes]` of ridge regression on all of `sums`.

    A penalty that is lost in the rounding of the sums is raised.
    """
    total, x, y, xx, xy = (reduce(torch.add, values) for values in zip(*(part.values for part in sums), strict=True))
    covariance = xx / total - torch.outer(x / total, x / total)
    cross = xy / total - torch.outer(x / total, y / total)
    identity = torch.eye(len(x), dtype=x.dtype)
    for penalty in penalties:
        # Values of very different scales would hide the penalty by rounding.
        raised = (torch.linalg.cholesky_ex(covariance + penalty * 10.0**more * identity) for more in count())
        factor = next(factor for factor, failed in raised if not failed)
        weight = torch.cholesky_solve(cross, factor).T
        yield penalty, (weight, (y - weight @ x) / total)
