"""Protocols: which utterances train, validate and test; and the checks for leaks.

``corpus``
    Train on some corpora and test on others, over the labels that both have. Each corpus is left out in turn
    (`make_split`), or both sides are named (`split_corpora`). Speakers of an official test set are in no part, so that
    ``speaker`` can score the same network.
``speaker``
    No speaker is in two parts. CREMA-D has audEERING's split 1.1.0 with 56, 18 and 17 speakers. EmoDB, SAVEE, EMOVO and
    CASIA leave one speaker out, and the next speaker validates. Others, such as a folder of one's own, draw 60, 20 and
    20 % of the speakers. Of several corpora together each is split its own way, but only official validation speakers
    validate if there are any.
``random``
    No recording is in two parts, but speakers are: 72, 8 and 20 % of the clips of each label.
``paper``
    The published protocol: originals and altered versions together, 80 and 20 % of the samples of each label, without
    validation. Almost every test sample has another version of its recording in training, so the score is for
    comparison with the published numbers only.

The table of a folder of one's own may name the part of each clip. Under ``speaker`` and ``random`` that is the split.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np

from ...errors import ConfigError, DatasetError
from .corpora import CORPORA, ORIGINAL, PARTS, Utterance, named

Protocol = Literal["corpus", "speaker", "random", "paper"]
Fold: TypeAlias = "int | Literal['final'] | None"

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1  # of what does not test
FEWEST_LABELS = 2  # in a score: with one label every answer is right

Utterances: TypeAlias = tuple[Utterance, ...]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The parts of a split."""

    protocol: Protocol
    """How the parts are kept apart."""
    fold: Fold = None
    """Fold of a cross-validation, ``final`` for all that may train, None where there is one split."""
    train: Utterances
    """What the weights are fitted to."""
    validation: Utterances = ()
    """Clips that choose the epoch and, except under ``corpus``, the temperature; never test clips."""
    test: Utterances = ()
    """What is scored."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """By corpus, the labels that its clips can have, in alphabetical order; for a test corpus under ``corpus``, those
    that training clips have, too."""
    left_out: tuple[str, ...] = ()
    """Ids of utterances that are in no part because they are known defects."""
    note: str = ""
    """How the parts were made, for the reader of a score."""

    @property
    def parts(self) -> dict[str, Utterances]:
        """The clips by name of their part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def leakage(self) -> float:
        """Share of test utterances of which training or validation holds some version of the same recording."""
        seen = {utterance.recording for utterance in (*self.train, *self.validation)}
        return sum(utterance.recording in seen for utterance in self.test) / max(1, len(self.test))


def number_of_folds(utterances: Sequence[Utterance], protocol: Protocol) -> int:
    """Return the number of folds of the cross-validation, 0 where there is one fixed split."""
    corpora = _by_corpus(utterances)
    if protocol == "corpus":
        return len(corpora) if len(corpora) > 1 else 0
    if protocol == "speaker":
        left_out = [clips for name, clips in corpora.items() if CORPORA[name].leave_one_out]
        return max((len({u.speaker for u in clips}) for clips in left_out), default=0)
    return 0


def make_split(
    utterances: Sequence[Utterance],
    *,
    protocol: Protocol,
    versions: Sequence[str] = (ORIGINAL,),
    fold: Fold = None,
    seed: int = 0,
) -> Split:
    """Split `utterances` and check the result for leaks.

    Args:
        utterances: originals of one or several corpora, in any order; the result depends on ids only.
        protocol: ``corpus``, ``speaker``, ``random`` or ``paper``.
        versions: names from `augment.VERSIONS`, all of which training clips have; under ``paper`` all clips.
        fold: which fold of a cross-validation, or ``final`` to train on all but the official test speakers.
        seed: of all draws.

    Raises:
        DatasetError: the corpus cannot be split so, or the split leaks.
        ConfigError: there is no such fold.
    """
    usable, left_out = _without_defects(utterances, keep=protocol == "paper")
    folds = number_of_folds(usable, protocol)
    name = " and ".join(_by_corpus(usable))
    if isinstance(fold, int) and not 0 <= fold < folds:
        raise ConfigError(
            f"fold {fold} does not exist: {name} under {protocol} has "
            + (f"folds 0 to {folds - 1}" if folds else "one split without folds")
        )
    if fold is None and folds:
        raise ConfigError(f"{name} under {protocol} is a cross-validation: choose a fold from 0 to {folds - 1}")
    if protocol == "corpus":
        split = _leave_one_corpus_out(usable, fold)
    elif protocol == "paper":
        split = _paper(usable, versions, seed)
    elif fold == "final" and not any(CORPORA[corpus].test_speakers for corpus in _by_corpus(usable)):
        note = "trained on every speaker; the score is that of the cross-validation"
        split = Split(protocol=protocol, train=tuple(usable), note=note)
    else:
        split = _by_speaker(usable, fold, seed) if protocol == "speaker" else _by_recording(usable, seed)
        if fold == "final":
            split = without_validation(split)
    split = replace(split, fold=fold, left_out=left_out, labels=split.labels or _labels_of(usable))
    tested = {utterance.label for utterance in split.test}
    own = all(utterance.corpus == "folder" for utterance in usable)
    if own and split.test and (untested := sorted({utterance.label for utterance in split.train} - tested)):
        split = replace(split, note=f"{split.note}; not tested, because too few clips are: {', '.join(untested)}")
    if protocol != "paper":
        split = replace(split, train=_altered(split.train, versions))
    check_leaks(split)
    return split


def split_corpora(utterances: Sequence[Utterance], *, train: Sequence[str], test: Sequence[str]) -> Split:
    """Train on the corpora `train` and test on the corpora `test`, over the labels that both have.

    The official validation speakers of a corpus in `train` validate. Official test speakers are in no part.

    Args:
        utterances: of all these corpora at least; others are ignored.
        train: names of corpora.
        test: names of other corpora.

    Raises:
        ConfigError: a corpus is on both sides.
        DatasetError: a corpus is missing, or has not two labels in common with those that train.
    """
    if shared := sorted(set(train) & set(test)):
        raise ConfigError(f"{', '.join(shared)} would be trained and tested on: name each corpus on one side")
    usable, left_out = _without_defects([u for u in utterances if u.corpus in {*train, *test}], keep=False)
    split = replace(_between_corpora(usable, train, test), left_out=left_out)
    check_leaks(split)
    return split


def score_all(utterances: Sequence[Utterance], protocol: Protocol) -> Split:
    """Return a split without training that tests all that the folds of `protocol` test together.

    Under ``corpus`` official test speakers are in no part.
    """
    usable, left_out = _without_defects(utterances, keep=False)
    note = "every clip, as the folds together test: new voices only for a model that was not trained on this corpus"
    if protocol == "corpus":
        reserved = {speaker for name in _by_corpus(usable) for speaker in CORPORA[name].test_speakers}
        usable = [utterance for utterance in usable if utterance.speaker not in reserved]
        note = "every clip" + (" but those of the official test speakers" if reserved else "")
    return Split(
        protocol=protocol, train=(), test=tuple(usable), labels=_labels_of(usable), left_out=left_out, note=note
    )


def parts_to_score(utterances: Iterable[Utterance]) -> dict[str, Utterances]:
    """Return what gets a score of its own: each corpus, and the common sentences of a corpus that has them.

    In SAVEE most sentences are spoken in one emotion only, so a network that recognises words is right for the wrong
    reason. Therefore ``savee, common sentences`` is scored beside ``savee``.
    """
    found: dict[str, Utterances] = {}
    for name, clips in _by_corpus(utterances).items():
        found[name] = tuple(clips)
        if common := CORPORA[name].common_sentences:
            found[f"{name}, common sentences"] = tuple(clip for clip in clips if clip.sentence in common)
    return found


def without_validation(split: Split) -> Split:
    """Return `split` with its validation clips moved to training."""
    versions = tuple(dict.fromkeys(utterance.version for utterance in split.train)) or (ORIGINAL,)
    return replace(
        split,
        train=split.train + _altered(split.validation, versions),
        validation=(),
        note=f"{split.note}; the validation speakers are trained on too",
    )


def check_contents(split: Split, contents: Mapping[str, str]) -> None:
    """Refuse a split that has the same file in two parts, under whatever names; under ``paper`` that is intended.

    Args:
        split: what is checked.
        contents: SHA-256 of the files by recording.

    Raises:
        DatasetError: a file is in two parts.
    """
    if split.protocol == "paper":
        return
    seen: dict[str, tuple[str, str]] = {}
    for part, utterances in split.parts.items():
        for utterance in utterances:
            if (content := contents.get(utterance.recording)) is None:
                continue
            other, name = seen.setdefault(content, (part, utterance.id))
            if other != part:
                raise DatasetError(
                    f"the {split.protocol} split leaks: {utterance.id} ({part}) and {name} ({other}) are one and the "
                    "same file: keep one of them"
                )


def check_leaks(split: Split) -> None:
    """Refuse a split whose parts share what its protocol keeps apart.

    Raises:
        DatasetError: parts share corpora (``corpus``, training and test), speakers (``corpus``, ``speaker``), samples
            (``paper``) or recordings (all others).
    """
    keys: dict[str, Callable[[Utterance], str]]
    if split.protocol == "paper":
        keys = {"samples": lambda utterance: utterance.id}
    else:
        keys = {"recordings": lambda utterance: utterance.recording}
    if split.protocol in ("corpus", "speaker"):
        # Two clips without a speaker's name may be from one speaker.
        keys["speakers"] = lambda utterance: utterance.speaker or f"an unknown speaker of {utterance.corpus}"
    for what, key in keys.items():
        _require_apart(split.protocol, what, {part: {key(u) for u in clips} for part, clips in split.parts.items()})
    if split.protocol == "corpus":
        train = {u.corpus for u in (*split.train, *split.validation)}
        _require_apart("corpus", "corpora", {"train": train, "test": {u.corpus for u in split.test}})


def _require_apart(protocol: str, what: str, sides: Mapping[str, set[str]]) -> None:
    for one, other in combinations(sides, 2):
        if shared := sorted(sides[one] & sides[other]):
            raise DatasetError(
                f"the {protocol} split leaks: {len(shared)} {what} are in {one} and in {other}: "
                f"{named(shared)}: move each to one part"
            )


def _by_corpus(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    found: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        found[utterance.corpus].append(utterance)
    return {name: found[name] for name in CORPORA if name in found}


def _labels_of(utterances: Iterable[Utterance]) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sorted({u.label for u in clips})) for name, clips in _by_corpus(utterances).items()}


def _without_defects(utterances: Iterable[Utterance], *, keep: bool) -> tuple[list[Utterance], tuple[str, ...]]:
    ordered = sorted(utterances, key=lambda utterance: utterance.id)
    if keep:
        return ordered, ()
    left_out = tuple(u.id for u in ordered if u.id in CORPORA[u.corpus].defects)
    return [utterance for utterance in ordered if utterance.id not in left_out], left_out


def _altered(utterances: Iterable[Utterance], versions: Sequence[str]) -> Utterances:
    return tuple(utterance.altered(version) for utterance in utterances for version in versions)


def _leave_one_corpus_out(utterances: list[Utterance], fold: Fold) -> Split:
    names = list(_by_corpus(utterances))
    if fold == "final":
        split = _between_corpora(utterances, names, [])
        return replace(
            without_validation(split), note="trained on every corpus; the score is that of the corpora left out in turn"
        )
    if not isinstance(fold, int):
        raise DatasetError(
            f"the corpus protocol needs two corpora, here is {names[0]} alone: name several, joined by +"
        )
    return _between_corpora(utterances, [name for name in names if name != names[fold]], [names[fold]])


def _between_corpora(utterances: Sequence[Utterance], train: Sequence[str], test: Sequence[str]) -> Split:
    """Return a split by corpora; official test speakers are in no part."""
    if missing := sorted({*train, *test} - {utterance.corpus for utterance in utterances}):
        raise DatasetError(f"the corpora {', '.join(missing)} are not there: add them, or name others")
    reserved = {speaker for name in (*train, *test) for speaker in CORPORA[name].test_speakers}
    corpora = _by_corpus(u for u in utterances if u.speaker not in reserved)
    validating = {speaker for name in train for speaker in CORPORA[name].validation_speakers}
    known = [u for name in train for u in corpora[name]]
    labels = _labels_of(known)
    known_labels = {label for each in labels.values() for label in each}
    tested: list[Utterance] = []
    notes = [f"trained on {', '.join(train)}"]
    for name in test:
        labels[name] = tuple(sorted({u.label for u in corpora[name]} & known_labels))
        if len(labels[name]) < FEWEST_LABELS:
            raise DatasetError(
                f"{name} shares {len(labels[name])} labels with {', '.join(train)}: a score needs {FEWEST_LABELS}: "
                "add a corpus that has more of its labels"
            )
        tested += [u for u in corpora[name] if u.label in labels[name]]
        outside = Counter(u.label for u in corpora[name] if u.label not in labels[name])
        listed = ", ".join(f"{count} {label}" for label, count in sorted(outside.items()))
        notes.append(f"tested on {name}" + (f" without {listed}, which no training clip has" if listed else ""))
    if reserved:
        notes.append("official test speakers are in no part")
    return Split(
        protocol="corpus",
        train=tuple(u for u in known if u.speaker not in validating),
        validation=tuple(u for u in known if u.speaker in validating),
        test=tuple(tested),
        labels=labels,
        note="; ".join(notes),
    )


def _named_parts(protocol: Protocol, utterances: list[Utterance]) -> Split:
    """Return the split that a table names."""
    parts: dict[str, Any] = {part: tuple(u for u in utterances if u.part == part) for part in PARTS}
    for part in ("train", "validation"):
        if not parts[part]:
            raise DatasetError(f"no clip's split is {part}: some must train, and others choose epoch and temperature")
    return Split(protocol=protocol, note="the parts are those of the table", **parts)


def _by_speaker(utterances: list[Utterance], fold: Fold, seed: int) -> Split:
    if any(utterance.part for utterance in utterances):
        _require_speakers(utterances)
        return _named_parts("speaker", utterances)
    corpora = _by_corpus(utterances)
    official = any(CORPORA[name].validation_speakers for name in corpora)
    testing: set[str] = set()
    validating: set[str] = set()
    notes = []
    for name, clips in corpora.items():
        test, validation, note = _speakers(name, clips, fold, seed)
        if official and not CORPORA[name].validation_speakers:
            validation = set()
        elif validation and CORPORA[name].leave_one_out:
            note += f", {', '.join(sorted(validation))} validates"
        testing |= test
        validating |= validation
        notes.append(f"{name}: {note}" if len(corpora) > 1 else note)
    ordered = [utterance for clips in corpora.values() for utterance in clips]
    return Split(
        protocol="speaker",
        train=tuple(u for u in ordered if u.speaker not in testing | validating),
        validation=tuple(u for u in ordered if u.speaker in validating),
        test=tuple(u for u in ordered if u.speaker in testing),
        note="; ".join(notes),
    )


def _speakers(name: str, utterances: list[Utterance], fold: Fold, seed: int) -> tuple[set[str], set[str], str]:
    """Return the test and validation speakers of one corpus, and a note on them."""
    corpus = CORPORA[name]
    _require_speakers(utterances)
    speakers = sorted({utterance.speaker for utterance in utterances})
    if corpus.test_speakers:
        test, validation = set(corpus.test_speakers), set(corpus.validation_speakers)
        rest = len(set(speakers) - test - validation)
        note = f"{corpus.official_split}: {rest} training, {len(validation)} validation, {len(test)} test speakers"
        return test, validation, note
    if corpus.leave_one_out:
        if not isinstance(fold, int) or fold >= len(speakers):
            return set(), set(), "every speaker trains"
        test, validation = {speakers[fold]}, {speakers[(fold + 1) % len(speakers)]}
        return test, validation, f"leave one speaker out: {speakers[fold]} tests"
    shuffled = [speakers[i] for i in np.random.default_rng(seed).permutation(len(speakers))]
    share = max(1, round(TEST_SHARE * len(speakers)))
    note = f"{len(speakers) - 2 * share} training, {share} validation, {share} test speakers drawn with seed {seed}"
    return set(shuffled[:share]), set(shuffled[share : 2 * share]), note


def _require_speakers(utterances: list[Utterance]) -> None:
    speakers = {utterance.speaker for utterance in utterances}
    unnamed = sum(not utterance.speaker for utterance in utterances)
    if unnamed or len(speakers) < 3:
        raise DatasetError(
            f"{utterances[0].corpus}: the speaker protocol needs the speaker of every clip and 3 of them, here are "
            f"{len(speakers) - (unnamed > 0)}, and {unnamed} clips without: "
            "give a CSV file with a speaker column, or pass --protocol random"
        )


def _by_recording(utterances: list[Utterance], seed: int) -> Split:
    rng = np.random.default_rng(seed)
    if any(utterance.part == "validation" for utterance in utterances):
        return _named_parts("random", utterances)
    if any(utterance.part for utterance in utterances):
        _, validation = _stratified([u for u in utterances if u.part == "train"], VALIDATION_SHARE, rng)
        chosen = {utterance.id for utterance in validation}
        split = _named_parts("random", [replace(u, part="validation") if u.id in chosen else u for u in utterances])
        return replace(split, note=f"{split.note}, validation drawn from training with seed {seed}")
    others, test = _stratified(utterances, TEST_SHARE, rng)
    train, validation = _stratified(others, VALIDATION_SHARE, rng)
    note = f"speakers are shared between training and test; drawn with seed {seed}"
    return Split(protocol="random", train=tuple(train), validation=tuple(validation), test=tuple(test), note=note)


def _paper(utterances: list[Utterance], versions: Sequence[str], seed: int) -> Split:
    if any(utterance.part for utterance in utterances):
        raise ConfigError("protocol paper draws its own parts: pass another one, or leave out the column split")
    pool = _altered(utterances, versions)
    train, test = _stratified(pool, TEST_SHARE, np.random.default_rng(seed))
    split = Split(protocol="paper", train=tuple(train), test=tuple(test))
    note = f"{split.leakage:.1%} of test samples have a version of the same recording in training"
    return replace(split, note=note)


def _stratified(
    utterances: Sequence[Utterance], share: float, rng: np.random.Generator
) -> tuple[list[Utterance], list[Utterance]]:
    """Draw `share` of `utterances`, the same share of each label, and return the others and the drawn.

    The total is rounded up. The clips that are left over by rounding down go to the labels with the largest remainders.
    The only clip of a label is not drawn.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, utterance in enumerate(utterances):
        groups[utterance.label].append(index)
    total = int(np.ceil(share * len(utterances) - 1e-9))
    exact = {name: share * len(group) for name, group in groups.items()}
    counts = {name: int(value) for name, value in exact.items()}
    several = [name for name, group in groups.items() if len(group) > 1]
    by_remainder = sorted(several, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    drawn = {index for name in sorted(groups) for index in rng.permutation(groups[name])[: counts[name]].tolist()}
    return (
        [utterance for index, utterance in enumerate(utterances) if index not in drawn],
        [utterance for index, utterance in enumerate(utterances) if index in drawn],
    )
