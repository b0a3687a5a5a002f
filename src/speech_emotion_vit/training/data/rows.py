"""Rows, which stages train on and scores are computed from: windows of utterances with their labels, in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import DatasetError
from ...model.config import FrontendConfig
from ...model.frontend import LogMel
from .corpora import Utterance
from .features import Store

BUCKET_BATCHES = 8  # batches whose rows are sorted by length together: enough to save padding, little enough to mix

WIDTH_SAMPLES = 8000  # batches of waveforms are multiples of this, half a second

IMPOSSIBLE = -1e4  # a logit whose exponential is 0, and that gives no NaN in a difference or a product with 0

Indices = npt.NDArray[np.int64]


class Rows:
    """Utterances, one row per window; of a front-end with columns `ImageRows`, of one without `WaveformRows`.

    Args:
        utterances: the clips; those that could not be read are left out.
        store: features of at least these clips.
        labels: of the network, in the order of its head.
        device: of the batches.
        possible: by corpus, the labels that its clips can have: `Split.labels`. The listeners of CREMA-D could not
            choose boredom, so a network that learns from several corpora chooses among the labels of the clip's corpus.

    Raises:
        DatasetError: there are utterances and none can be read.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        store: Store,
        labels: Sequence[str],
        *,
        device: torch.device,
        possible: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        readable = [utterance for utterance in utterances if utterance.id in store.rows]
        if utterances and not readable:
            raise DatasetError(f"none of {len(utterances)} clips can be read: see the faults named above")
        self.utterances = readable
        """The clips; `owners` points into this list."""
        self.device = device
        self._values = store.values
        places = [(place, clip) for clip, each in enumerate(readable) for place in self._windows(*store.rows[each.id])]
        self._places: Indices = np.array([place for place, _ in places], dtype=np.int64).reshape(-1, 2)
        self.owners: Indices = np.array([clip for _, clip in places], dtype=np.int64)
        """The clip of each row `[rows]`."""
        classes = {label: index for index, label in enumerate(labels)}
        self.clip_targets: Indices = np.array([classes[utterance.label] for utterance in readable], dtype=np.int64)
        """The true class of each clip `[clips]`."""
        self.targets: Indices = self.clip_targets[self.owners]
        """The true class of each row `[rows]`."""
        self._masks = _masks([utterance.corpus for utterance in readable], labels, possible)
        self.lengths: Indices = self._lengths()
        """How long each row is `[rows]`, in columns or samples."""

    def _windows(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return first and last value of each row of a clip, given those of the clip."""
        raise NotImplementedError

    def _lengths(self) -> Indices:
        raise NotImplementedError

    def inputs(self, rows: Indices) -> tuple[Tensor, ...]:
        """Return the arguments of a network's `embed` for some rows, on the device.

        Args:
            rows: their numbers.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.owners)

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


class ImageRows(Rows):
    """Rows of images. On a GPU they are kept on the device; on the CPU they stay memory-mapped."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._resident: Tensor | None = None
        if self.device.type != "cpu" and len(self):
            self._resident = torch.from_numpy(self._values[self._places[:, 0]]).to(self.device)

    def _windows(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(row, row + 1) for row in range(first, last)]

    def _lengths(self) -> Indices:
        """Return the columns of each row that are not zero throughout `[rows]`."""
        rows = self._places[:, 0]
        parts = [self._values[rows[i : i + 256]].view(np.uint16) for i in range(0, len(rows), 256)]
        return np.concatenate([np.zeros(0), *((part != 0).any(axis=1).sum(axis=1) for part in parts)]).astype(np.int64)

    def inputs(self, rows: Indices) -> tuple[Tensor, ...]:
        """Return images `[len(rows), 1, n_mels, columns]`."""
        if self._resident is not None:
            return (self._resident[torch.from_numpy(rows).to(self.device)].float().unsqueeze(1),)
        return (torch.from_numpy(self._values[self._places[rows, 0]]).float().unsqueeze(1),)


class WaveformRows(Rows):
    """Rows of speech from `load_speech`; their images are as wide as the longest row of a batch.

    Args:
        arguments: those of `Rows`.
        frontend: makes the images; a row is at most as long as its window.
        options: those of `Rows`.
    """

    def __init__(self, *arguments: Any, frontend: FrontendConfig, **options: Any) -> None:
        self.frontend = LogMel(frontend)
        super().__init__(*arguments, **options)
        self.frontend.to(self.device)

    def _windows(self, first: int, last: int) -> list[tuple[int, int]]:
        c = self.frontend.config
        starts = [*range(first, last - c.window_samples, c.hop_samples), max(first, last - c.window_samples)]
        return [(start, min(last, start + c.window_samples)) for start in starts]

    def _lengths(self) -> Indices:
        return self._places[:, 1] - self._places[:, 0]

    def inputs(self, rows: Indices) -> tuple[Tensor, ...]:
        """Return images `[len(rows), 1, n_mels, frames]` and how many frames belong to each clip `[len(rows)]`."""
        waveforms = [self._waveform(row) for row in rows]
        return images_of(waveforms, self.frontend, self.device)

    def _waveform(self, row: int) -> npt.NDArray[np.float32]:
        first, last = self._places[row]
        return np.array(self._values[first:last])


@torch.no_grad()
def images_of(
    waveforms: Sequence[npt.NDArray[np.float32]], frontend: LogMel, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return images `[batch, 1, n_mels, frames]` of clips of any lengths, and how many frames each has `[batch]`.

    The width is that of the longest clip, rounded up to half a second, because kernels are cached for each width.
    """
    samples = np.array([len(waveform) for waveform in waveforms])
    hop = frontend.config.hop_length
    width = -(-int(samples.max()) // WIDTH_SAMPLES) * WIDTH_SAMPLES
    padded = np.zeros((len(waveforms), width), np.float32)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    frames = torch.from_numpy(samples // hop + 1).to(device)
    power = frontend.mel_power(torch.from_numpy(padded).to(device))
    return frontend.image(power, frames), frames


def make_rows(
    utterances: Sequence[Utterance],
    store: Store,
    labels: Sequence[str],
    frontend: FrontendConfig,
    *,
    device: torch.device,
    possible: Mapping[str, Sequence[str]] | None = None,
) -> Rows:
    """Return `ImageRows` for a front-end with columns, else `WaveformRows`; the arguments are those of `Rows`."""
    if frontend.columns is None:
        return WaveformRows(utterances, store, labels, frontend=frontend, device=device, possible=possible)
    return ImageRows(utterances, store, labels, device=device, possible=possible)


def restrict(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Return `logits` `[batch, classes]` where `mask` `[batch, classes]` is true, elsewhere as good as -inf."""
    return logits if mask is None else torch.where(mask, logits, IMPOSSIBLE)
