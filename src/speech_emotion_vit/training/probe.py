"""Linear probe: a frozen network, and a new head by a linear support vector machine.

A few hundred clips of a few speakers are too little to move a million weights, but enough for a plane between them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..errors import DatasetError
from ..models import SpectrogramViT
from .augment import Augmentation, augment
from .data import Indices, Rows
from .loop import seed_of
from .metrics import Floats, fit_temperature
from .recipes import ProbeSettings
from .scoring import SCORE_BATCH, Record, validation_record

COSTS = (1e-4, 3e-4, 1e-3, 3e-3)  # of the support vector machine: what is tried on clips left out
INNER_FOLDS = 3
ABSENT = -2.0  # margin of a class that a part of the clips lacks: as if far on the other side


@torch.no_grad()
def embed_rows(network: SpectrogramViT, rows: Rows, augmentation: Augmentation, seed: int) -> npt.NDArray[np.float32]:
    """Return the embeddings `[rows, embedding_dim]` of augmented images by a network in eval mode."""
    found = np.empty((len(rows), network.config.embedding_dim), np.float32)
    generator = torch.Generator(device=rows.device).manual_seed(seed)
    for batch in rows.by_length(SCORE_BATCH):
        found[batch] = network.embed(augment(rows.images(batch), augmentation, generator)).float().cpu().numpy()
    return found


def fit_probe(
    network: SpectrogramViT,
    train: Rows,
    left_out: npt.ArrayLike,
    settings: ProbeSettings,
    augmentation: Augmentation,
    seed: int,
) -> Record:
    """Fit the head of `network` in place, all else as it is, and return the record of what was done.

    Cost and temperature are chosen on training clips that are left out in turn, so none is kept from training.

    Args:
        network: on the device of `train`; its head is replaced.
        train: what the head is fitted to.
        left_out: names of what is left out together, of the clips of `train` `[clips]`: their speakers, for new voices.
        settings: how it is fitted.
        augmentation: of the copies.
        seed: of the copies.

    Raises:
        DatasetError: a class has no training clip, or too few speakers or clips are there to leave some out.
    """
    started = time.monotonic()
    classes = network.config.num_classes
    present = len(np.unique(train.targets))
    if present < classes:
        raise DatasetError(f"the training clips have {present} of {classes} labels: add clips of the others")
    if np.bincount(train.clip_targets).max() < INNER_FOLDS:
        raise DatasetError(f"no label has {INNER_FOLDS} training clips, too few to leave some out: add clips")
    network.eval()
    plain = embed_rows(network, train, Augmentation(), 0)
    seeds = [seed_of(seed, f"probe {copy}") for copy in range(settings.copies)]
    embeddings = np.stack([plain, *(embed_rows(network, train, augmentation, each) for each in seeds)])
    names = np.unique(np.asarray(left_out), return_inverse=True)[1]
    groups = (names if len(set(names)) >= INNER_FOLDS else np.arange(len(names)))[train.owners]
    margins = _left_out_margins(embeddings, train.targets, groups, settings)
    scores = {cost: validation_record(values, train)["validation_ua"] for cost, values in margins.items()}
    cost = max(scores, key=scores.__getitem__)
    weight, bias = _fit(embeddings, train.targets, (cost,), settings, classes)[cost]
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weight))
        network.head.bias.copy_(torch.from_numpy(bias))
    return {
        "cost": cost,
        "left_out_ua": scores[cost],
        "temperature": fit_temperature(margins[cost], train.owners, train.clip_targets),
        "seconds": time.monotonic() - started,
    }


def _left_out_margins(
    embeddings: npt.NDArray[np.float32], targets: Indices, groups: Indices, settings: ProbeSettings
) -> dict[float, Floats]:
    """Return what machines of every cost say of the plain rows of groups they have not seen `[rows, classes]`."""
    from sklearn.model_selection import StratifiedGroupKFold

    classes = int(targets.max()) + 1
    margins = {cost: np.zeros((len(targets), classes)) for cost in COSTS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label with fewer clips than folds is not in each of them
        folds = list(StratifiedGroupKFold(INNER_FOLDS).split(targets, targets, groups))
    for seen, unseen in folds:
        for cost, (weight, bias) in _fit(embeddings[:, seen], targets[seen], COSTS, settings, classes).items():
            margins[cost][unseen] = embeddings[0, unseen] @ weight.T + bias
    return margins


def _fit(
    embeddings: npt.NDArray[np.float32],
    targets: Indices,
    costs: Sequence[float],
    settings: ProbeSettings,
    classes: int,
) -> dict[float, tuple[Floats, Floats]]:
    """Return weight `[classes, dim]` and bias `[classes]`, by cost, of machines on embeddings `[copies, rows, dim]`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    copies, rows, width = embeddings.shape
    scaler = StandardScaler()
    scaled = scaler.fit_transform(embeddings.reshape(copies * rows, width))
    balance = "balanced" if settings.balanced else None
    found = {}
    for cost in costs:
        machine = LinearSVC(C=cost, class_weight=balance, dual=True, tol=1e-2, max_iter=1000, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last per mille of the optimum changes no answer
            machine.fit(scaled, np.tile(targets, copies))
        planes, offsets = machine.coef_, machine.intercept_
        if len(machine.classes_) == 2:  # one plane, between the first and the second
            planes, offsets = np.concatenate((-planes, planes)) / 2, np.concatenate((-offsets, offsets)) / 2
        weight, bias = np.zeros((classes, width)), np.full(classes, ABSENT)
        weight[machine.classes_] = planes / scaler.scale_
        bias[machine.classes_] = offsets - weight[machine.classes_] @ scaler.mean_
        found[cost] = weight, bias
    return found
