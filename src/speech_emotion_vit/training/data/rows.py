"""The rows a stage trains on or is scored on: images of utterances, their labels, and the order they are seen in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import DatasetError
from .corpora import Utterance
from .features import Store

BUCKET_BATCHES = 8  # batches whose rows are sorted by length together: enough to save padding, little enough to mix

IMPOSSIBLE = -1e4  # a logit whose exponential is 0, and that gives no NaN in a difference or a product with 0

Indices = npt.NDArray[np.int64]


class Rows:
    """Images of utterances, one row per window.

    On a GPU the images are kept on the device; on the CPU they stay memory-mapped.

    Args:
        utterances: what to take; one that could not be read is left out.
        features: the images of at least these.
        labels: of the network, in the order of its head.
        device: where batches are wanted.
        possible: by corpus, the labels that its clips can have, as `Split.labels` has them. Nobody was asked whether a
            clip of CREMA-D is bored, so a network that learns from several corpora is only asked among these.

    Raises:
        DatasetError: utterances were asked for and none can be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        features: Store,
        labels: Sequence[str],
        *,
        device: torch.device,
        possible: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        readable = [utterance for utterance in utterances if utterance.id in features.rows]
        if utterances and not readable:
            raise DatasetError(f"none of {len(utterances)} clips can be read: see the faults named above")
        self.utterances = readable
        """The clips; `owners` points into this list."""
        self.device = device
        self._images = features.values
        rows = [(row, clip) for clip, each in enumerate(readable) for row in range(*features.rows[each.id])]
        self._row: Indices = np.array([row for row, _ in rows], dtype=np.int64)
        self.owners: Indices = np.array([clip for _, clip in rows], dtype=np.int64)
        """The clip of each row `[rows]`."""
        classes = {label: index for index, label in enumerate(labels)}
        self.clip_targets: Indices = np.array([classes[utterance.label] for utterance in readable], dtype=np.int64)
        """The true class of each clip `[clips]`."""
        self.targets: Indices = self.clip_targets[self.owners]
        """The true class of each row `[rows]`."""
        self._masks = _masks([utterance.corpus for utterance in readable], labels, possible)
        self.lengths: Indices = _lengths(self._images, self._row)
        """Columns of each row that are not padding `[rows]`."""
        self._resident: Tensor | None = None
        if device.type != "cpu" and len(rows):
            self._resident = torch.from_numpy(self._images[self._row]).to(device)

    def __len__(self) -> int:
        return len(self.owners)

    def images(self, rows: Indices) -> Tensor:
        """Return the images `[len(rows), 1, n_mels, columns]` in float32 on the device."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self.device)].float().unsqueeze(1)
        return torch.from_numpy(self._images[self._row[rows]]).float().unsqueeze(1)

    def mask(self, rows: Indices) -> Tensor | None:
        """Return whether each row can have each label `[len(rows), classes]`; None where all can have all."""
        if self._masks is None:
            return None
        return torch.from_numpy(self._masks[self.owners[rows]]).to(self.device)

    def shuffled(self, batch_size: int, rng: np.random.Generator) -> list[Indices]:
        """Return all rows once, in random batches of nearly equal size whose rows are of similar length."""
        count = -(-len(self) // batch_size)
        order = rng.permutation(len(self))
        bounds = [part[0] for part in np.array_split(np.arange(len(self)), count)] + [len(self)]
        batches: list[Indices] = []
        for first in range(0, count, BUCKET_BATCHES):
            last = min(first + BUCKET_BATCHES, count)
            bucket = order[bounds[first] : bounds[last]]
            bucket = bucket[np.argsort(self.lengths[bucket], kind="stable")]
            start = bounds[first]
            batches += [bucket[bounds[i] - start : bounds[i + 1] - start] for i in range(first, last)]
        return [batches[i] for i in rng.permutation(count)]

    def by_length(self, batch_size: int) -> list[Indices]:
        """Return all rows once, in batches from the shortest to the longest."""
        order = np.argsort(self.lengths, kind="stable")
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _masks(
    corpora: Sequence[str], labels: Sequence[str], possible: Mapping[str, Sequence[str]] | None
) -> npt.NDArray[np.bool_] | None:
    """Return whether a clip of each of `corpora` can have each of `labels` `[clips, classes]`; None where all can."""
    if possible is None or all(set(labels) <= set(possible[corpus]) for corpus in set(corpora)):
        return None
    return np.array([[label in possible[corpus] for label in labels] for corpus in corpora])


def _lengths(images: npt.NDArray[np.float16], rows: Indices) -> Indices:
    """Return the columns of each of `rows` that are not zero throughout `[rows]`."""
    parts = [images[rows[i : i + 256]].view(np.uint16) for i in range(0, len(rows), 256)]
    return np.concatenate([np.zeros(0), *((part != 0).any(axis=1).sum(axis=1) for part in parts)]).astype(np.int64)


def restrict(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return `logits` `[batch, classes]` where `mask` `[batch, classes]` is true, elsewhere as good as -inf."""
    return logits if mask is None else torch.where(mask, logits, IMPOSSIBLE)
