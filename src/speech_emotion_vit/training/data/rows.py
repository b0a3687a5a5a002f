"""The rows a stage trains on or is scored on: images of items, their labels, and the order they are seen in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import DatasetError
from .features import FeatureStore
from .protocols import Item

BUCKET_BATCHES = 8  # batches whose rows are sorted by length together: enough to save padding, little enough to mix

IMPOSSIBLE = -1e4  # a logit whose exponential is 0, and that gives no NaN in a difference or a product with 0

Indices = npt.NDArray[np.int64]


class Rows:
    """Images of `items`, one row per window, from the stores of their versions.

    On a GPU the images are kept on the device; on the CPU they stay memory-mapped.

    Args:
        items: what to take; an utterance that no store could read is left out.
        stores: the features by version.
        classes: label index by utterance.
        device: where batches are wanted.
        possible: whether a clip can have each label, by utterance; None where all can have all.
        votes: what listeners heard `[2][classes]`, by utterance; None where it is not learnt.

    Raises:
        DatasetError: items were asked for and none can be read.
    """

    def __init__(
        self,
        items: Sequence[Item],
        stores: Mapping[int, FeatureStore],
        classes: Mapping[str, int],
        *,
        device: torch.device,
        possible: Mapping[str, Sequence[bool]] | None = None,
        votes: Mapping[str, Sequence[Sequence[float]]] | None = None,
    ) -> None:
        readable = [item for item in items if item.utterance in stores[item.version].rows]
        if items and not readable:
            raise DatasetError(f"none of {len(items)} items can be read: see the faults named above")
        self.items = readable
        """The clips; `owners` points into this list."""
        self.device = device
        places = [
            (item.version, row, clip)
            for clip, item in enumerate(readable)
            for row in range(*stores[item.version].rows[item.utterance])
        ]
        self._images = {version: store.images for version, store in stores.items()}
        self._version = np.array([place[0] for place in places], dtype=np.int64)
        self._row = np.array([place[1] for place in places], dtype=np.int64)
        self.owners: Indices = np.array([place[2] for place in places], dtype=np.int64)
        """The clip of each row `[rows]`."""
        self.clip_targets: Indices = np.array([classes[item.utterance] for item in readable], dtype=np.int64)
        """The true class of each clip `[clips]`."""
        self.targets: Indices = self.clip_targets[self.owners]
        """The true class of each row `[rows]`."""
        self._possible = self._of_rows(possible)
        self._votes = self._of_rows(votes)
        lengths = {version: _lengths(images) for version, images in self._images.items()}
        self.lengths: Indices = np.array([lengths[version][row] for version, row, _ in places], dtype=np.int64)
        """Columns of each row that are not padding `[rows]`."""
        self._resident: Tensor | None = None
        if device.type != "cpu" and len(places):
            self._resident = torch.from_numpy(self._gather(np.arange(len(places)))).to(device)

    def __len__(self) -> int:
        return len(self.owners)

    def images(self, rows: Indices) -> Tensor:
        """Return the images `[len(rows), 1, n_mels, columns]` in float32 on the device."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self.device)].float().unsqueeze(1)
        return torch.from_numpy(self._gather(rows)).float().unsqueeze(1)

    def possible(self, rows: Indices) -> Tensor | None:
        """Return whether each row can have each label `[len(rows), classes]`, None where all can have all."""
        return None if self._possible is None else self._possible[torch.from_numpy(rows).to(self.device)]

    def votes(self, rows: Indices) -> Tensor | None:
        """Return what listeners heard `[len(rows), 2, classes]`, None where it is not learnt."""
        return None if self._votes is None else self._votes[torch.from_numpy(rows).to(self.device)]

    def _of_rows(self, values: Mapping[str, Any] | None) -> Tensor | None:
        """Return what is known by utterance, by row and on the device; None where nothing is."""
        if values is None or not self.items:
            return None
        of_clips = torch.tensor([values[item.utterance] for item in self.items])
        return of_clips[torch.from_numpy(self.owners)].to(self.device)

    def _gather(self, rows: Indices) -> npt.NDArray[np.float16]:
        return np.stack([self._images[int(self._version[row])][self._row[row]] for row in rows])

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


def _lengths(images: npt.NDArray[np.float16]) -> Indices:
    """Return the columns of each image that are not zero throughout `[rows]`."""
    lengths = [(images[i : i + 256].view(np.uint16) != 0).any(axis=1).sum(axis=1) for i in range(0, len(images), 256)]
    return np.concatenate(lengths).astype(np.int64)


def restrict(logits: Tensor, possible: Tensor | None) -> Tensor:
    """Return `logits` `[batch, classes]` where a class is `possible` `[batch, classes]`, elsewhere as good as -inf."""
    return logits if possible is None else torch.where(possible, logits, IMPOSSIBLE)
