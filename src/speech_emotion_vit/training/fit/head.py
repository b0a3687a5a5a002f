"""Linear probe: a frozen network, and a new head by ridge regression on the classes.

A few hundred clips of a few speakers are too little to move a million weights, but enough for a plane between them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import DatasetError
from ...model.vit import SpectrogramViT
from ..data.rows import Indices, Rows, restrict
from ..data.specaugment import Augmentation, augment
from ..recipes import ProbeSettings
from ..score.evaluate import SCORE_BATCH, Record, validation_record
from ..score.metrics import fit_temperature
from .loop import seed_of
from .pretrained import OwnHead

INNER_FOLDS = 5  # at most: what is left out in turn to choose among the penalties
FEWEST_CLIPS = 3  # of the most frequent label, else nothing can be left out

Head = tuple[Tensor, Tensor]


@torch.no_grad()
def embed_rows(network: SpectrogramViT, rows: Rows, augmentation: Augmentation, seed: int) -> Tensor:
    """Return the embeddings `[rows, embedding_dim]` of augmented images by a network in eval mode, on the CPU."""
    found = torch.empty((len(rows), network.config.embedding_dim))
    generator = torch.Generator(device=rows.device).manual_seed(seed)
    for batch in rows.by_length(SCORE_BATCH):
        found[batch] = network.embed(augment(rows.images(batch), augmentation, generator)).float().cpu()
    return found


def fit_probe(
    network: SpectrogramViT,
    train: Rows,
    left_out: npt.ArrayLike,
    settings: ProbeSettings,
    augmentation: Augmentation,
    seed: int,
    own: OwnHead | None = None,
) -> Record:
    """Fit the head of `network` in place, all else as it is, and return the record of what was done.

    Penalty and temperature are chosen on training clips that are left out in turn, so none is kept from training.
    Beside a head that is kept the new one has its share as a second opinion; a network that has heard the training
    clips flatters what is left out of them.

    Args:
        network: on the device of `train`; its head is replaced.
        train: what the head is fitted to.
        left_out: names of what is left out together, of the clips of `train` `[clips]`: their speakers, for new voices.
        settings: how it is fitted.
        augmentation: of the copies.
        seed: of the copies.
        own: the head that is kept, with the same classes; None where none is.

    Raises:
        DatasetError: a class has no training clip, or too few speakers or clips are there to leave some out.
    """
    started = time.monotonic()
    classes = network.config.num_classes
    counts = np.bincount(train.targets, minlength=classes)
    if not counts.all():
        raise DatasetError(f"the training clips have {np.count_nonzero(counts)} of {classes} labels: add the others")
    if np.bincount(train.clip_targets).max() < FEWEST_CLIPS:
        raise DatasetError(f"no label has {FEWEST_CLIPS} training clips, too few to leave some out: add clips")
    network.eval()
    first = 0 if own is None else own.weight.shape[1]
    plain = embed_rows(network, train, Augmentation(), 0)[:, first:]
    spread, centre = torch.std_mean(plain, dim=0, correction=0)
    spread[spread < 1e-6] = 1.0  # what never changes tells nothing
    few = network.config.contour_dim
    if 0 < few < len(spread):  # among thousands of values a penalty would hide so few
        spread[-few:] /= (settings.contour_weight * (len(spread) - few) / few) ** 0.5
    plain = (plain - centre) / spread
    targets = 2.0 * torch.nn.functional.one_hot(torch.from_numpy(train.targets), classes).float() - 1.0
    weights = torch.from_numpy(_weights(train, classes) if settings.balanced else np.ones(len(train))).float()
    folds = _folds(train, np.asarray(left_out))
    sums = [_Sums(plain.shape[1], classes) for _ in range(folds.max() + 1)]
    shares = [1.0] + [settings.copies_weight / settings.copies for _ in range(settings.copies)]
    for copy, share in enumerate(shares):
        embeddings = plain
        if copy:
            embeddings = embed_rows(network, train, augmentation, seed_of(seed, f"probe {copy - 1}"))[:, first:]
            embeddings = (embeddings - centre) / spread
        for fold, part in enumerate(sums):
            part.add(embeddings[folds == fold], targets[folds == fold], share * weights[folds == fold])
    penalty, temperature, record = _best_penalty(sums, folds, plain, train, settings.penalties)
    ((_, (weight, bias)),) = _heads(sums, [penalty])
    weight = weight / spread
    bias = bias - weight @ centre.double()
    if own is not None:
        weight, bias = _joined(own, (weight / temperature, bias / temperature), settings.keep)
        temperature = 1.0
    with torch.no_grad():
        network.head.weight.copy_(weight)
        network.head.bias.copy_(bias)
    return {
        "penalty": penalty,
        "left_out_ua": record["validation_ua"],
        "left_out_nll": record["validation_nll"],
        "temperature": temperature,
        "seconds": time.monotonic() - started,
    }


def _best_penalty(
    sums: Sequence[_Sums], folds: Indices, plain: Tensor, train: Rows, penalties: Sequence[float]
) -> tuple[float, float, Record]:
    """Return the penalty of the likeliest answers to what is left out in turn, their temperature, and their scores."""
    margins = {penalty: np.zeros((len(train), int(train.targets.max()) + 1)) for penalty in penalties}
    for fold in range(len(sums)):
        unseen = folds == fold
        for penalty, (weight, bias) in _heads([part for part in sums if part is not sums[fold]], penalties):
            margins[penalty][unseen] = (plain[unseen].double() @ weight.T + bias).numpy()
    mask = train.mask(np.arange(len(train)))
    found = []
    for penalty, values in margins.items():
        values = restrict(torch.from_numpy(values), None if mask is None else mask.cpu()).numpy()
        temperature = fit_temperature(values, train.owners, train.clip_targets)
        found.append((penalty, temperature, validation_record(values / temperature, train)))
    # By likelihood, for the recall of a few hundred clips jumps about from one penalty to the next.
    return min(found, key=lambda each: each[2]["validation_nll"])


def _joined(own: OwnHead, other: Head, keep: float) -> Head:
    """Return the weighted mean of two calibrated heads, the second of which reads what the first does not."""
    weight = torch.cat((keep * own.weight.double(), (1.0 - keep) * other[0]), dim=1)
    return weight, keep * own.bias.double() + (1.0 - keep) * other[1]


def _weights(train: Rows, classes: int) -> npt.NDArray[np.float64]:
    """Return weights `[rows]` by which all labels of a corpus weigh the same, and all corpora of a mixture."""
    mask = train.mask(np.arange(len(train)))
    if mask is None:
        clips = np.bincount(train.targets)[train.targets]
    else:  # corpora are known by the labels their clips can have
        known, corpus = np.unique(mask.cpu().numpy(), axis=0, return_inverse=True)
        cell = corpus.reshape(-1) * classes + train.targets
        clips = np.bincount(cell)[cell] * known.sum(axis=1)[corpus.reshape(-1)]
    return np.reciprocal(clips, dtype=np.float64)


def _folds(train: Rows, left_out: npt.NDArray[np.str_]) -> Indices:
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


class _Sums:
    """Weighted sums over embeddings and targets: all that ridge regression needs to know of its data."""

    def __init__(self, dim: int, classes: int) -> None:
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


def _heads(sums: Sequence[_Sums], penalties: Sequence[float]) -> Iterator[tuple[float, Head]]:
    """Yield, for every penalty, weight `[classes, dim]` and bias `[classes]` of ridge regression on all of `sums`.

    A penalty that is lost in the rounding of the sums is raised.
    """
    total, x, y, xx, xy = (reduce(torch.add, values) for values in zip(*(part.values for part in sums), strict=True))
    covariance = xx / total - torch.outer(x / total, x / total)
    cross = xy / total - torch.outer(x / total, y / total)
    identity = torch.eye(len(x), dtype=x.dtype)
    for penalty in penalties:
        # Values far larger in copies than in clips, which are all alike, would hide the penalty by rounding.
        raised = (torch.linalg.cholesky_ex(covariance + penalty * 10.0**more * identity) for more in count())
        factor = next(factor for factor, failed in raised if not failed)
        weight = torch.cholesky_solve(cross, factor).T
        yield penalty, (weight, (y - weight @ x) / total)
