"""Protocols: which utterances are trained on, which choose, which score; and the leak check.

``speaker``
    Speakers disjoint: a new voice. CREMA-D: audEERING's split 1.1.0 with 56 / 18 / 17 speakers; EmoDB and SAVEE:
    leave one speaker out, the next speaker cyclically validates; a folder of one's own: speakers 60 / 20 / 20.
    All three together: five folds, each with CREMA-D's split, and two speakers of EmoDB and, but for the last, one of
    SAVEE testing; only CREMA-D's speakers validate, for the others have too few to spare.
``random``
    Recordings disjoint, speakers shared: known voices, new clips. Stratified 72 / 8 / 20; augmented versions
    stay on the side of their recording and only originals validate and test.
``paper``
    The published protocol: the pool of originals and augmented versions, stratified 80 / 20 by sample, nothing held
    out for validation. Almost every test item has another version of its recording in training: for comparison with
    the published numbers only.

The table of a folder of one's own may name each clip's part: under ``speaker`` and ``random`` that is the split then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias, TypeVar, get_args

import numpy as np

from ...errors import ConfigError, DatasetError
from .corpora import PARTS, Utterance, named

Protocol = Literal["speaker", "random", "paper"]
Fold: TypeAlias = "int | Literal['final'] | None"
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# audEERING's split of CREMA-D, version 1.1.0; the other 56 speakers train.
_TEST = (1048, 1069, 1071, 1074, 1076, 1077, 1078, 1079, 1082, 1083, 1084, 1086, 1087, 1088, 1089, 1090, 1091)
_VALIDATION = (
    *(1049, 1053, 1054, 1055, 1058, 1059, 1061, 1062, 1063, 1064, 1065, 1066, 1067, 1068, 1070, 1075, 1080, 1085),
)
CREMA_D_TEST = frozenset(map(str, _TEST))
CREMA_D_VALIDATION = frozenset(map(str, _VALIDATION))
GENERAL_FOLDS = {"emodb": 5, "savee": 4}  # of all three corpora; CREMA-D is split the same way in each
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1  # of what does not test

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


class Item(NamedTuple):
    """One sample: an utterance in one of its versions, 0 being the original."""

    utterance: str
    version: int


@dataclass(frozen=True, kw_only=True)
class Split:
    """Who trains, who chooses, who scores."""

    protocol: Protocol
    """Which of the three protocols."""
    fold: Fold
    """Fold of a cross-validation, ``final`` for all that may train, None where there is one split."""
    train: tuple[Item, ...]
    """Items the weights are fitted to."""
    validation: tuple[Item, ...]
    """Items that choose the epoch and the temperature; never test items."""
    test: tuple[Item, ...]
    """Items the scores are about."""
    left_out: tuple[str, ...] = ()
    """Utterances in none of the three: the corpus's known defects."""
    note: str = ""
    """What a reader of the score must know."""

    @property
    def leakage(self) -> float:
        """Share of test items of which training or validation holds some version of the same recording."""
        seen = {item.utterance for item in self.train} | {item.utterance for item in self.validation}
        return sum(item.utterance in seen for item in self.test) / max(1, len(self.test))


def number_of_folds(utterances: Sequence[Utterance], corpus: str, protocol: Protocol) -> int:
    """Return the number of folds of the cross-validation, 0 where there is one fixed split."""
    if protocol == "speaker" and corpus == "general":
        return max(GENERAL_FOLDS.values())
    if protocol == "speaker" and corpus in ("emodb", "savee"):
        return len({utterance.speaker for utterance in utterances})
    return 0


def make_split(
    utterances: Sequence[Utterance],
    *,
    corpus: str,
    protocol: Protocol,
    defects: Mapping[str, str],
    versions: Sequence[int] = (0,),
    fold: Fold = None,
    seed: int = 0,
) -> Split:
    """Split `utterances` and check the result for leaks.

    Args:
        utterances: the corpus, in any order; the result depends on ids only.
        corpus: its name.
        protocol: ``speaker``, ``random`` or ``paper``.
        defects: utterances that are left out everywhere but under ``paper``, whose published counts include them.
        versions: the versions that train; under ``paper`` the pool.
        fold: which fold of a cross-validation, or ``final`` to train on everything but the published test speakers of
            CREMA-D, which are there to be scored; its validation speakers train, too.
        seed: of the draws of ``random`` and ``paper`` and of a folder's speakers.

    Raises:
        DatasetError: the corpus cannot be split so, or the split leaks.
        ConfigError: there is no such protocol or fold.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    left_out = tuple(u.id for u in ordered if u.id in defects) if protocol != "paper" else ()
    usable = [utterance for utterance in ordered if utterance.id not in left_out]
    folds = number_of_folds(usable, corpus, protocol)
    if isinstance(fold, int) and not 0 <= fold < folds:
        raise ConfigError(
            f"fold {fold} does not exist: {corpus} under {protocol} has "
            + (f"folds 0 to {folds - 1}" if folds else "one split without folds")
        )
    if fold is None and folds:
        raise ConfigError(f"{corpus} under {protocol} is a cross-validation: choose a fold from 0 to {folds - 1}")
    published_test = protocol == "speaker" and corpus in ("crema-d", "general")
    if fold == "final" and not published_test:
        split = Split(
            protocol=protocol,
            fold=fold,
            train=_versions(usable, versions),
            validation=(),
            test=(),
            left_out=left_out,
            note="trained on every speaker; the score is that of the cross-validation",
        )
    elif protocol == "paper":
        if any(utterance.part for utterance in usable):
            raise ConfigError("protocol paper draws its own parts: pass another one, or leave out the column split")
        split = _paper(usable, versions, seed)
    else:
        divide = _by_speaker if protocol == "speaker" else _by_recording
        train, validation, test, note = divide(usable, corpus, fold, seed)
        split = Split(
            protocol=protocol,
            fold=fold,
            train=_versions(train, versions),
            validation=_versions(validation, (0,)),
            test=_versions(test, (0,)),
            left_out=left_out,
            note=note,
        )
        if fold == "final":
            split = without_validation(split, versions)
    check_leaks(split, ordered)
    return split


def without_validation(split: Split, versions: Sequence[int]) -> Split:
    """Return `split` with its validation utterances in training, in all `versions`."""
    also = tuple(Item(item.utterance, version) for item in split.validation for version in versions)
    return replace(
        split, train=split.train + also, validation=(), note=f"{split.note}; the validation speakers are trained on too"
    )


def check_contents(split: Split, contents: Mapping[str, str]) -> None:
    """Refuse a split that has one and the same file on two sides, under whatever names; ``paper`` has versions anyway.

    Args:
        split: what is refused.
        contents: SHA-256 of the files by utterance.

    Raises:
        DatasetError: it has.
    """
    if split.protocol == "paper":
        return
    seen: dict[str, tuple[str, str]] = {}
    for part, items in (("training", split.train), ("validation", split.validation), ("test", split.test)):
        for item in items:
            if (content := contents.get(item.utterance)) is None:
                continue
            other, name = seen.setdefault(content, (part, item.utterance))
            if other != part:
                raise DatasetError(
                    f"the {split.protocol} split leaks: {item.utterance} ({part}) and {name} ({other}) are one and the "
                    "same file: keep one of them"
                )


def check_leaks(split: Split, utterances: Sequence[Utterance]) -> None:
    """Refuse a split whose parts share what its protocol keeps apart.

    Raises:
        DatasetError: speakers (``speaker``) or recordings (``speaker``, ``random``) are on two sides, an item is on
            two sides (``paper``), or an item is no utterance of the corpus.
    """
    speaker_of = {utterance.id: utterance.speaker for utterance in utterances}
    parts = {"training": split.train, "validation": split.validation, "test": split.test}
    unknown = sorted({i.utterance for items in parts.values() for i in items} - set(speaker_of))
    if unknown:
        raise DatasetError(f"the split names utterances that the corpus lacks: {named(unknown)}")
    keys: dict[str, Callable[[Item], Hashable]]
    if split.protocol == "paper":
        keys = {"item": lambda item: f"{item.utterance} version {item.version}"}
    else:
        keys = {"recording": lambda item: item.utterance}
    if split.protocol == "speaker":
        keys["speaker"] = lambda item: speaker_of[item.utterance]
    for what, key in keys.items():
        sides = {part: {key(item) for item in items} for part, items in parts.items()}
        for one, other in (("training", "test"), ("validation", "test"), ("training", "validation")):
            shared = sorted(map(str, sides[one] & sides[other]))
            if shared:
                raise DatasetError(
                    f"the {split.protocol} split leaks: {len(shared)} {what}s are in {one} and in {other}: "
                    f"{named(shared)}: move each to one side"
                )


def _versions(utterances: Sequence[Utterance], versions: Sequence[int]) -> tuple[Item, ...]:
    return tuple(Item(utterance.id, version) for utterance in utterances for version in versions)


Division = tuple[list[Utterance], list[Utterance], list[Utterance], str]


def _as_named(utterances: list[Utterance]) -> Division:
    parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
    for utterance in utterances:
        parts[utterance.part].append(utterance)
    for part in ("train", "validation"):
        if not parts[part]:
            raise DatasetError(f"no clip's split is {part}: some must train, and others choose epoch and temperature")
    return parts["train"], parts["validation"], parts["test"], "the parts are those of the table"


def _by_speaker(utterances: list[Utterance], corpus: str, fold: Fold, seed: int) -> Division:
    if corpus == "general":
        return _each_by_speaker(utterances, fold)
    speakers = sorted({utterance.speaker for utterance in utterances})
    unnamed = sum(not utterance.speaker for utterance in utterances)
    if unnamed or len(speakers) < 3:
        raise DatasetError(
            f"{corpus}: the speaker protocol needs the speaker of every clip and 3 of them, here are "
            f"{len(speakers) - (unnamed > 0)}, and {unnamed} clips without: "
            "give a CSV file with a speaker column, or pass --protocol random"
        )
    if any(utterance.part for utterance in utterances):
        return _as_named(utterances)
    if corpus == "crema-d":
        test, validation = set(CREMA_D_TEST), set(CREMA_D_VALIDATION)
        note = "audEERING split 1.1.0: 56 training, 18 validation, 17 test speakers"
    elif isinstance(fold, int):
        test, validation = {speakers[fold]}, {speakers[(fold + 1) % len(speakers)]}
        note = f"leave one speaker out: {speakers[fold]} tests, {speakers[(fold + 1) % len(speakers)]} validates"
    else:
        shuffled = [speakers[i] for i in np.random.default_rng(seed).permutation(len(speakers))]
        share = max(1, round(TEST_SHARE * len(speakers)))
        test, validation = set(shuffled[:share]), set(shuffled[share : 2 * share])
        note = f"{len(speakers) - 2 * share} training, {share} validation, {share} test speakers drawn with seed {seed}"
    return (
        [u for u in utterances if u.speaker not in test | validation],
        [u for u in utterances if u.speaker in validation],
        [u for u in utterances if u.speaker in test],
        note,
    )


def _each_by_speaker(utterances: list[Utterance], fold: Fold) -> Division:
    test = {f"crema-d/{speaker}" for speaker in CREMA_D_TEST}
    validation = {f"crema-d/{speaker}" for speaker in CREMA_D_VALIDATION}
    for corpus, folds in GENERAL_FOLDS.items():
        speakers = sorted({utterance.speaker for utterance in utterances if utterance.corpus == corpus})
        if isinstance(fold, int) and fold < folds:
            test.update(speakers[fold * len(speakers) // folds : (fold + 1) * len(speakers) // folds])
    held = sorted({u.speaker for u in utterances if u.corpus != "crema-d"} & test)
    note = "CREMA-D: audEERING split 1.1.0; "
    note += f"held out of the others: {', '.join(held)}" if held else "every speaker of the others trains"
    return (
        [u for u in utterances if u.speaker not in test | validation],
        [u for u in utterances if u.speaker in validation],
        [u for u in utterances if u.speaker in test],
        note,
    )


def _by_recording(utterances: list[Utterance], corpus: str, fold: Fold, seed: int) -> Division:
    if any(utterance.part for utterance in utterances):
        return _as_named(utterances)
    rng = np.random.default_rng(seed)
    rest, test = _stratified(utterances, lambda u: u.label, TEST_SHARE, rng)
    train, validation = _stratified(rest, lambda u: u.label, VALIDATION_SHARE, rng)
    return train, validation, test, f"speakers are shared between training and test; drawn with seed {seed}"


def _paper(utterances: list[Utterance], versions: Sequence[int], seed: int) -> Split:
    label_of = {utterance.id: utterance.label for utterance in utterances}
    pool = list(_versions(utterances, versions))
    train, test = _stratified(pool, lambda i: label_of[i.utterance], TEST_SHARE, np.random.default_rng(seed))
    split = Split(protocol="paper", fold=None, train=tuple(train), validation=(), test=tuple(test))
    return Split(
        protocol="paper",
        fold=None,
        train=split.train,
        validation=(),
        test=split.test,
        note=f"{split.leakage:.1%} of test items have a version of the same recording in training",
    )


def _stratified(
    items: Sequence[T], label: Callable[[T], str], share: float, rng: np.random.Generator
) -> tuple[list[T], list[T]]:
    """Draw `share` of `items`, rounded up in total, from every label in proportion; return the rest and the drawn.

    Largest remainders get the items that rounding down leaves over; the only item of a label is not drawn.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[label(item)].append(index)
    total = int(np.ceil(share * len(items) - 1e-9))
    exact = {name: share * len(group) for name, group in groups.items()}
    counts = {name: int(value) for name, value in exact.items()}
    several = [name for name, group in groups.items() if len(group) > 1]
    by_remainder = sorted(several, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    drawn = {index for name in sorted(groups) for index in rng.permutation(groups[name])[: counts[name]].tolist()}
    return (
        [item for index, item in enumerate(items) if index not in drawn],
        [item for index, item in enumerate(items) if index in drawn],
    )
