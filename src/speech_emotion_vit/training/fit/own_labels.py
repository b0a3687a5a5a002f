"""Own labels in one call: a trained network stays as it is and gets a new last layer.

Every clip goes through the network once. The rest is linear algebra on a few hundred rows, so penalty and temperature
can be chosen, and the result scored, on clips that are left out in turn.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...audio.inputs import several
from ...audio.reader import AudioInput
from ...backends.base import Floats
from ...backends.load import Device
from ...backends.torch import TorchBackend
from ...batch import Batcher, Clip
from ...classifier import EmotionClassifier
from ...errors import AudioError, ConfigError, DatasetError, quoted
from ...extras import require
from ...model.build import build_network
from ...model.config import ClassifierConfig, FrameViTConfig
from ...weights.card import CardFacts
from ...weights.checkpoint import HEAD, without_head
from ...weights.manifest import Metric
from ..data.corpora import named
from ..score.metrics import Indices, fit_temperature, mean_probabilities, negative_log_likelihood, score_clips

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)  # of the squared weights, per clip, on standardised embeddings
FOLDS = 10  # at most
FEWEST = 3  # clips of a label, and speakers if they are left out: one to score, one to choose by, one to fit to
THREADS = min(4, os.cpu_count() or 1)  # that decode

Floats64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HeadEvaluation:
    """Scores on clips that were left out when the head was fitted and its penalty and temperature were chosen."""

    clips: int
    """Number of clips that were scored."""
    speakers: int
    """Number of speakers among them, 0 where they are unknown."""
    left_out: Literal["speakers", "clips"]
    """What was left out in turn: with ``speakers`` the scores are for new speakers, with ``clips`` for known ones."""
    ua: float
    """Unweighted average recall: the mean of `recalls`, from 0 to 1."""
    ua_interval: tuple[float, float] | None
    """95 % interval over what was left out."""
    wa: float
    """Share of all clips that are right."""
    ece: float
    """Expected calibration error."""
    recalls: dict[str, float]
    """By label, the share of its clips that are right."""
    confusion: tuple[tuple[int, ...], ...]
    """Clips by true (row) and predicted (column) label, in the order of `recalls`."""
    notes: tuple[str, ...] = ()
    """Restrictions on what the scores mean."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types."""
        return asdict(self)

    def __str__(self) -> str:
        interval = "" if self.ua_interval is None else " ({:.0%} to {:.0%})".format(*self.ua_interval)
        width = max(8, *map(len, self.recalls))
        who = f"{self.speakers} speakers" if self.speakers else "unknown speakers"
        lines = [
            f"{self.clips} clips of {who}, {self.left_out} left out in turn",
            f"UA {self.ua:.0%}{interval}, WA {self.wa:.0%}, calibration error {self.ece:.0%}",
            "",
            "  ".join([f"{'label':<{width}}", "right", "predicted", *(f"{name:>{width}}" for name in self.recalls)]),
        ]
        for (name, recall), row in zip(self.recalls.items(), self.confusion, strict=True):
            lines.append("  ".join([f"{name:<{width}}", f"{recall:5.0%}", " " * 9, *(f"{n:>{width}}" for n in row)]))
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def fit_head(
    clips: Iterable[AudioInput],
    labels: Iterable[str],
    speakers: Iterable[str | None] | None = None,
    *,
    sampling_rate: int | None = None,
    base: str | os.PathLike[str] | None = None,
    device: Device = "auto",
    errors: Literal["raise", "skip"] = "raise",
    progress: Callable[[int, int], object] | None = None,
) -> EmotionClassifier:
    """Return a classifier for labels of your own, with `evaluation`; a few hundred clips take less than a minute.

    The network of `base` stays as it is. Its head is replaced by ridge regression on the embeddings, in which all
    labels have the same weight. Penalty and temperature are chosen on speakers who are left out in turn. If speakers
    are unknown, or fewer than three, clips are left out instead; see `evaluation.left_out`.

    >>> model = fit_head(clips, labels, speakers)
    >>> print(model.evaluation)
    >>> model.save("my-model")

    Args:
        clips: what `EmotionClassifier.predict` takes, one for each label.
        labels: what each clip is. There must be at least two labels, with at least three clips each.
        speakers: who speaks in each clip; None or empty where that is unknown.
        sampling_rate: Hz of the arrays and tensors among the clips; files have their own.
        base: the model whose network is used, as `EmotionClassifier` takes it; None is the bundled default.
        device: where the network runs.
        errors: ``raise`` the `AudioError` of the first clip that cannot be read, or ``skip`` such clips.
        progress: called with the number of clips that are done, and of all.

    Raises:
        DatasetError: clips, labels and speakers do not fit together, or are too few.
        AudioError: a clip cannot be read, with ``errors="raise"``.
        ConfigError: an option or a label makes no sense, or scikit-learn is not installed.
        WeightsError: the base model cannot be found or read.
    """
    require("sklearn", "train")
    require("scipy", "train")
    if errors not in ("raise", "skip"):
        raise ConfigError(f"errors must be 'raise' or 'skip', not {quoted(errors)}")
    clips = several(clips)
    audios, names = list(clips), _texts(labels)
    voices = [""] * len(names) if speakers is None else [_speaker(speaker) for speaker in speakers]
    for what, given in (("clips", audios), ("speakers", voices)):
        if len(given) != len(names):
            raise DatasetError(f"{len(given)} {what} and {len(names)} labels: give one of each for every clip")
    _require_enough(names)
    classifier = EmotionClassifier(base, device=device, backend="torch")
    kinds = tuple(sorted(set(names)))
    shape = replace(classifier.config.model, num_classes=len(kinds))
    if isinstance(shape, FrameViTConfig):
        shape = replace(shape, head_hidden=0)
    config = replace(classifier.config, labels=kinds, model=shape, temperature=1.0)

    found = _embed(classifier, audios, sampling_rate, errors, progress)
    names, voices = [names[index] for index in found.kept], [voices[index] for index in found.kept]
    _require_enough(names, unreadable=len(found.faults))
    groups, left_out, notes = _groups([audios[index] for index in found.kept], names, voices)
    if found.faults:
        notes.append(
            f"{len(found.faults)} of {len(audios)} clips cannot be read and are left out: {named(found.faults)}"
        )
    targets = np.array([kinds.index(name) for name in names])
    ridge = _Ridge(found.embeddings, found.owners, targets, _folds(targets, groups))
    weight, bias = ridge.head()
    scores = score_clips(ridge.left_out_probabilities(), targets, groups, kinds)
    classifier.backend = TorchBackend(_with_head(classifier, config, weight, bias), config, classifier.device)
    metric = Metric(
        name="UA",
        value=scores.ua,
        protocol="speaker" if left_out == "speakers" else "random",
        split="cross-validation",
        clips=scores.clips,
        speakers=len(set(filter(None, voices))),
        interval=scores.ua_interval,
    )
    classifier.facts = CardFacts(
        metrics=(metric,),
        scored_on="own recordings",
        trained_on=f"The network is that of {classifier.name}; its head was fitted to {scores.clips} clips",
    )
    classifier.name = f"own labels on {classifier.name}"
    confusion = np.array(scores.confusion)
    classifier.evaluation = HeadEvaluation(
        clips=scores.clips,
        speakers=metric.speakers,
        left_out=left_out,
        ua=scores.ua,
        ua_interval=scores.ua_interval,
        wa=scores.wa,
        ece=scores.ece,
        recalls=dict(zip(kinds, (confusion.diagonal() / confusion.sum(axis=1)).tolist(), strict=True)),
        confusion=scores.confusion,
        notes=tuple(notes),
    )
    return classifier


def _texts(labels: Iterable[str]) -> list[str]:
    names = list(labels)
    if isinstance(labels, str) or not all(isinstance(name, str) for name in names):
        wrong = labels if isinstance(labels, str) else next(name for name in names if not isinstance(name, str))
        raise DatasetError(f"labels must be one text for every clip, not {quoted(wrong)}: pass a list of names")
    return [str(name) for name in names]


def _speaker(speaker: object) -> str:
    """Return a name, empty where it is unknown: None, empty, or the NaN of a table."""
    return "" if speaker is None or speaker != speaker else str(speaker)


def _require_enough(names: Sequence[str], unreadable: int = 0) -> None:
    rest = f" ({unreadable} clips cannot be read)" if unreadable else ""
    counts = Counter(names)
    if len(counts) < 2:
        only = f"all {len(names)} clips are labelled {quoted(next(iter(counts)))}" if counts else "there are no clips"
        raise DatasetError(f"{only}{rest}: give clips of at least two labels")
    if few := [f"{name} ({count})" for name, count in sorted(counts.items()) if count < FEWEST]:
        raise DatasetError(
            f"labels with fewer than {FEWEST} clips{rest}: {named(few)}: add clips of them, or leave them out"
        )


class _Embeddings(NamedTuple):
    """Embeddings of all clips that can be read."""

    embeddings: Floats
    """`[windows, dim]`"""
    owners: Indices
    """The clip of each window, `[windows]`, from 0, without gaps."""
    kept: list[int]
    """The clips among those given, `[clips]`."""
    faults: list[str]
    """For each clip that cannot be read: which it is, and why."""


class _WindowsOfClip(Clip):
    """A clip that keeps the embedding of every window, because a head is applied to each window."""

    def __init__(self, source: AudioInput) -> None:
        super().__init__(source)
        self.embeddings: list[Floats] = []

    def add(self, *results: Any) -> None:
        super().add(*results)
        self.embeddings.append(results[-1])


def _embed(
    classifier: EmotionClassifier,
    audios: Sequence[AudioInput],
    sampling_rate: int | None,
    errors: str,
    progress: Callable[[int, int], object] | None,
) -> _Embeddings:
    """Send all clips through the network, in the windows that `predict` cuts them into."""
    batcher = Batcher(
        classifier.backend,
        sampling_rate=sampling_rate,
        vad_filter=classifier.vad_filter,
        threads=THREADS,
        skip_rate=True,
        clip=_WindowsOfClip,
    )
    embeddings: list[Floats] = []
    owners: list[int] = []
    kept: list[int] = []
    faults: list[str] = []
    for index, clip in enumerate(batcher.run(audios)):
        if clip.error is not None:
            if errors == "raise":
                raise AudioError(f"{clip.error} (errors='skip' leaves such clips out)") from clip.error
            faults.append(str(clip.error))
        else:
            assert isinstance(clip, _WindowsOfClip)
            embeddings += clip.embeddings
            owners += [len(kept)] * len(clip.embeddings)
            kept.append(index)
        if progress is not None:
            progress(index + 1, len(audios))
    return _Embeddings(np.array(embeddings), np.array(owners, np.int64), kept, faults)


def _groups(
    audios: Sequence[AudioInput], names: Sequence[str], voices: Sequence[str]
) -> tuple[list[str], Literal["speakers", "clips"], list[str]]:
    """Return which clips are left out together `[clips]`, by speakers or clips, and notes on that."""
    unknown, known = voices.count(""), sorted(set(filter(None, voices)))
    if unknown or len(known) < FEWEST:
        why = (
            f"the speakers of {unknown} of {len(voices)} clips are unknown"
            if unknown
            else f"there are {len(known)} speakers"
        )
        note = f"{why}, so clips are left out, not speakers: expect lower scores for new speakers"
        # The same file twice is one clip.
        groups = [
            os.path.realpath(audio) if isinstance(audio, (str, os.PathLike)) else f"{index}:"
            for index, audio in enumerate(audios)
        ]
        return groups, "clips", [note]
    speakers = {name: {voice for each, voice in zip(names, voices, strict=True) if each == name} for name in names}
    single = [f"{name} ({', '.join(who)})" for name, who in sorted(speakers.items()) if len(who) == 1]
    notes = [f"from one speaker only, so never in training where it is scored: {named(single)}"] if single else []
    return list(voices), "speakers", notes


def _folds(targets: Indices, groups: Sequence[str]) -> Indices:
    """Return in which fold each clip is left out, `[clips]`; labels are spread over the folds as evenly as possible."""
    from sklearn.model_selection import StratifiedGroupKFold

    number = min(FOLDS, len(set(groups)), int(np.bincount(targets).max()))
    folds = np.zeros(len(targets), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label with fewer clips than folds is not in each of them
        for fold, (_, part) in enumerate(StratifiedGroupKFold(number).split(targets, targets, groups)):
            folds[part] = fold
    return np.unique(folds, return_inverse=True)[1]


class _Ridge:
    """Ridge regression of labels on embeddings, with the sums of every fold apart.

    Args:
        embeddings: `[windows, dim]`.
        owners: the clip of each window `[windows]`.
        targets: `[clips]`.
        folds: in which fold each clip is left out `[clips]`.
    """

    def __init__(self, embeddings: Floats, owners: Indices, targets: Indices, folds: Indices) -> None:
        from .head import RidgeSums  # its imports need the extra that `fit_head` has checked for

        self._owners, self._targets, self._folds = owners, targets, folds
        self._classes = int(targets.max()) + 1
        self._all = list(range(int(folds.max()) + 1))
        rows = embeddings.astype(np.float64)
        self._centre, self._spread = rows.mean(axis=0), rows.std(axis=0)
        self._spread[self._spread < 1e-6] = 1.0  # constant: it carries no information
        rows = (rows - self._centre) / self._spread
        # If windows are fewer than dimensions, the solution lies in the space that the windows span.
        self._span: Floats64 | None = None
        if len(rows) < rows.shape[1]:
            self._span, low = np.linalg.qr(rows.T)
            rows = np.ascontiguousarray(low.T)
        self._rows = torch.from_numpy(rows)
        answers = torch.nn.functional.one_hot(torch.from_numpy(targets[owners]), self._classes).double()
        clips = 1.0 / np.bincount(targets)[targets]  # all labels have the same weight, and all windows of a clip
        weights = torch.from_numpy((clips / np.bincount(owners))[owners])
        self._sums = []
        for fold in self._all:
            part = torch.from_numpy(folds[owners] == fold)
            self._sums.append(RidgeSums(self._rows.shape[1], self._classes))
            self._sums[-1].add(self._rows[part], answers[part], weights[part])

    def head(self) -> tuple[Tensor, Tensor]:
        """Return weight `[classes, dim]` and bias `[classes]` of calibrated logits, fitted to all clips."""
        penalty, temperature = self._chosen(self._all)
        ((_, (low, bias)),) = self._heads(self._all, [penalty])
        weight = low.numpy() if self._span is None else low.numpy() @ self._span.T
        weight = weight / self._spread
        return torch.from_numpy(weight / temperature), (bias - torch.from_numpy(weight @ self._centre)) / temperature

    def left_out_probabilities(self) -> Floats64:
        """Return probabilities `[clips, classes]` of each clip, by a head that was fitted and chosen without it."""
        logits = np.zeros((len(self._owners), self._classes))
        for fold in self._all:
            others = [other for other in self._all if other != fold]
            penalty, temperature = self._chosen(others)
            for _, head in self._heads(others, [penalty]):
                part = self._folds[self._owners] == fold
                logits[part] = self._answers(head, part) / temperature
        return mean_probabilities(logits, self._owners)

    def _chosen(self, folds: Sequence[int]) -> tuple[float, float]:
        """Return the penalty and temperature with the best likelihood when each of `folds` is left out in turn.

        Likelihood decides, because the recall of a few hundred clips varies at random from one penalty to the next.
        """
        logits = {penalty: np.zeros((len(self._owners), self._classes)) for penalty in PENALTIES}
        for fold in folds:
            part = self._folds[self._owners] == fold
            for penalty, head in self._heads([other for other in folds if other != fold], PENALTIES):
                logits[penalty][part] = self._answers(head, part)
        windows = np.isin(self._folds[self._owners], folds)
        owners = np.unique(self._owners[windows], return_inverse=True)[1]
        targets = self._targets[np.isin(self._folds, folds)]
        found = []
        for penalty, values in logits.items():
            temperature = fit_temperature(values[windows], owners, targets)
            likely = negative_log_likelihood(targets, mean_probabilities(values[windows], owners, temperature))
            found.append((likely, penalty, temperature))
        return min(found)[1:]

    def _heads(self, folds: Sequence[int], penalties: Sequence[float]) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
        from .head import ridge_heads

        return ridge_heads([self._sums[fold] for fold in folds], penalties)

    def _answers(self, head: tuple[Tensor, Tensor], part: npt.NDArray[np.bool_]) -> Floats64:
        weight, bias = head
        answers: Floats64 = (self._rows[torch.from_numpy(part)] @ weight.T + bias).numpy()
        return answers


def _with_head(classifier: EmotionClassifier, config: ClassifierConfig, weight: Tensor, bias: Tensor) -> Any:
    """Return the network of a classifier with another head."""
    with torch.random.fork_rng(devices=[]):  # initial values are overwritten: the caller's generator must not move
        network = build_network(config.model)
    network.load_state_dict(
        {**without_head(classifier.network.state_dict()), f"{HEAD}weight": weight, f"{HEAD}bias": bias}
    )
    return network
