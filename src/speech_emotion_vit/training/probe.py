"""Linear probe: a frozen network, and a new head by a linear support vector machine.

A few hundred clips of a few speakers are too little to move a million weights, but enough for a plane between them.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ..errors import DatasetError
from ..models import SpectrogramViT
from .augment import Augmentation, augment
from .data import Rows
from .loop import seed_of
from .recipes import ProbeSettings
from .scoring import SCORE_BATCH, Record, score_rows, validation_record

if TYPE_CHECKING:
    from sklearn.model_selection import GridSearchCV

COSTS = (3e-4, 1e-3, 3e-3)  # of the support vector machine: what is tried on speakers left out
INNER_FOLDS = 3


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
    validation: Rows,
    speakers: npt.ArrayLike,
    settings: ProbeSettings,
    augmentation: Augmentation,
    seed: int,
) -> list[Record]:
    """Fit the head of `network` in place, all else as it is, and return the record of what was done.

    How hard the machine is pressed is chosen on training speakers that are left out in turn, never on others.

    Args:
        network: on the device of `train`; its head is replaced.
        train: what the head is fitted to.
        validation: what it is scored on, maybe nothing.
        speakers: of the clips of `train` `[clips]`.
        settings: how it is fitted.
        augmentation: of the copies.
        seed: of the copies.

    Raises:
        DatasetError: a class has no training clip, or too few speakers or clips are there to leave some out.
    """
    started = time.monotonic()
    network.eval()
    plain = Augmentation()
    embeddings = np.concatenate(
        [embed_rows(network, train, augmentation if copy else plain, seed_of(seed, f"probe {copy}"))
         for copy in range(settings.copies + 1)]
    )  # fmt: skip
    times = settings.copies + 1
    names = np.unique(np.asarray(speakers), return_inverse=True)[1]
    groups = (names if len(set(names)) >= INNER_FOLDS else np.arange(len(names)))[train.owners]
    classes = network.config.num_classes
    if len(np.unique(train.targets)) < classes:
        raise DatasetError(f"the training clips have {len(np.unique(train.targets))} of {classes} labels: add the rest")
    search = _search(embeddings, np.tile(train.targets, times), np.tile(groups, times), settings)
    scaler, machine = (search.best_estimator_.named_steps[name] for name in ("scaler", "machine"))
    planes, offsets = machine.coef_, machine.intercept_
    if classes == 2:  # one plane, between the first and the second
        planes, offsets = np.concatenate((-planes, planes)) / 2, np.concatenate((-offsets, offsets)) / 2
    weight = planes / scaler.scale_
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(weight))
        network.head.bias.copy_(torch.from_numpy(offsets - weight @ scaler.mean_))
    record: Record = {"cost": float(search.best_params_["machine__C"]), "left_out_ua": float(search.best_score_)}
    if len(validation):
        record |= validation_record(score_rows(network, validation), validation)
    return [record | {"seconds": time.monotonic() - started}]


def _search(
    embeddings: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    settings: ProbeSettings,
) -> GridSearchCV:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if len(np.unique(groups)) < INNER_FOLDS:
        raise DatasetError(f"a probe needs at least {INNER_FOLDS} training clips, here are {len(np.unique(groups))}")
    weight = "balanced" if settings.balanced else None
    machine = LinearSVC(class_weight=weight, dual=True, tol=1e-2, max_iter=1000, random_state=0)
    search = GridSearchCV(
        Pipeline([("scaler", StandardScaler()), ("machine", machine)]),
        {"machine__C": list(COSTS)},
        scoring="balanced_accuracy",
        cv=GroupKFold(INNER_FOLDS),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last per mille of the optimum changes no answer
        return search.fit(embeddings, targets, groups=groups)
