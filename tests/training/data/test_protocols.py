from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from speech_emotion_vit.errors import ConfigError, DatasetError
from speech_emotion_vit.training.data.catalogue import CORPORA
from speech_emotion_vit.training.data.corpora import CREMA_D_LABELS, Utterance
from speech_emotion_vit.training.data.protocols import Item, Split, check_leaks, make_split, number_of_folds


def utterance(name: str, label: str, speaker: str) -> Utterance:
    return Utterance(id=name, path=Path(name), label=label, speaker=speaker, sentence="")


def crema_d() -> list[Utterance]:
    return [utterance(name, CREMA_D_LABELS[name[9:12]], name[:4]) for name in sorted(CORPORA["crema-d"].published)]


def savee() -> list[Utterance]:
    return [utterance(name, name[3:-2], name[:2]) for name in sorted(CORPORA["savee"].published)]


def emodb() -> list[Utterance]:
    return [utterance(name, name[5], name[:2]) for name in sorted(CORPORA["emodb"].published)]


def speakers(utterances: list[Utterance], items: tuple[Item, ...]) -> set[str]:
    owner = {u.id: u.speaker for u in utterances}
    return {owner[item.utterance] for item in items}


def split_of(utterances: list[Utterance], corpus: str, protocol: str, **options: object) -> Split:
    return make_split(
        utterances,
        corpus=corpus,
        protocol=protocol,  # type: ignore[arg-type]
        defects=CORPORA[corpus].defects,
        **options,  # type: ignore[arg-type]
    )


def test_crema_d_speaker_split_is_the_official_one() -> None:
    clips = crema_d()
    split = split_of(clips, "crema-d", "speaker")
    parts = [speakers(clips, items) for items in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [56, 18, 17]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    # Official: 4573, 1476, 1393. Six double-labelled clips are training speakers', the silent one a test speaker's.
    assert [len(split.train), len(split.validation), len(split.test)] == [4567, 1476, 1392]
    assert set(split.left_out) == set(CORPORA["crema-d"].defects)
    assert split.leakage == 0


@pytest.mark.parametrize(("corpus", "clips", "folds"), [("savee", savee(), 4), ("emodb", emodb(), 10)])
def test_leave_one_speaker_out(corpus: str, clips: list[Utterance], folds: int) -> None:
    assert number_of_folds(clips, corpus, "speaker") == folds
    names = sorted({clip.speaker for clip in clips})
    tested: Counter[str] = Counter()
    for fold in range(folds):
        split = split_of(clips, corpus, "speaker", fold=fold)
        assert speakers(clips, split.test) == {names[fold]}
        assert speakers(clips, split.validation) == {names[(fold + 1) % folds]}
        assert len(speakers(clips, split.train)) == folds - 2
        assert len(split.train) + len(split.validation) + len(split.test) == len(clips)
        tested.update(item.utterance for item in split.test)
    assert set(tested.values()) == {1}
    assert len(tested) == len(clips)


def general() -> list[Utterance]:
    corpora = {"crema-d": crema_d(), "emodb": emodb(), "savee": savee()}
    return [
        dataclasses.replace(clip, id=f"{name}/{clip.id}", speaker=f"{name}/{clip.speaker}", corpus=name)
        for name, clips in corpora.items()
        for clip in clips
    ]


def test_folds_of_all_corpora_test_every_new_voice_and_keep_the_official_split() -> None:
    clips = general()
    assert number_of_folds(clips, "general", "speaker") == 5
    tested: Counter[str] = Counter()
    for fold in range(5):
        split = split_of(clips, "general", "speaker", fold=fold)
        parts = [speakers(clips, items) for items in (split.train, split.validation, split.test)]
        by_corpus = [Counter(name.split("/")[0] for name in part) for part in parts]
        savee_too = {"savee": 1} if fold < 4 else {}
        assert by_corpus[0] == {"crema-d": 56, "emodb": 8, "savee": 3 if fold < 4 else 4}
        assert by_corpus[1] == {"crema-d": 18}
        assert by_corpus[2] == {"crema-d": 17, "emodb": 2} | savee_too
        assert len(split.train) + len(split.validation) + len(split.test) + len(split.left_out) == len(clips)
        assert {name.removeprefix("crema-d/") for name in split.left_out} == set(CORPORA["crema-d"].defects)
        assert "crema-d/1048" in parts[2]
        tested.update(parts[2])
    assert {name: count for name, count in tested.items() if "crema" not in name} == {
        clip.speaker: 1 for clip in clips if clip.corpus != "crema-d"
    }


def test_final_of_all_corpora_still_tests_on_crema_d() -> None:
    clips = general()
    split = split_of(clips, "general", "speaker", fold="final")
    assert (len(split.train), len(split.validation), len(split.test)) == (4567 + 1476 + 535 + 480, 0, 1392)
    assert {name.split("/")[0] for name in speakers(clips, split.test)} == {"crema-d"}


def test_final_of_crema_d_trains_on_validation_speakers_and_still_tests_on_the_others() -> None:
    clips = crema_d()
    split, usual = (split_of(clips, "crema-d", "speaker", fold=fold) for fold in ("final", None))
    assert set(split.train) == {*usual.train, *usual.validation}
    assert (split.validation, split.test) == ((), usual.test)


def test_final_trains_on_everything_and_tests_nothing() -> None:
    split = split_of(savee(), "savee", "speaker", fold="final")
    assert (len(split.train), len(split.validation), len(split.test)) == (480, 0, 0)


def test_random_split_is_stratified_and_tests_originals_only() -> None:
    clips = savee()
    split = split_of(clips, "savee", "random", versions=(0, 1, 2, 3), seed=3)
    label = {clip.id: clip.label for clip in clips}
    assert Counter(label[item.utterance] for item in split.test) == {
        **dict.fromkeys(["a", "d", "f", "h", "sa", "su"], 12),
        "n": 24,
    }
    assert {item.version for item in split.test + split.validation} == {0}
    assert Counter(item.version for item in split.train) == dict.fromkeys(range(4), 480 - 96 - len(split.validation))
    assert split.leakage == 0
    train, test = ({item.utterance for item in items} for items in (split.train, split.test))
    assert not train & test


@pytest.mark.parametrize(
    ("corpus", "clips", "items"), [("crema-d", crema_d(), 5954), ("emodb", emodb(), 428), ("savee", savee(), 384)]
)
def test_paper_split_has_the_published_size_and_leaks(corpus: str, clips: list[Utterance], items: int) -> None:
    split = split_of(clips, corpus, "paper", versions=(0, 1, 2, 3))
    assert len(split.test) == items
    assert len(split.train) == 4 * len(clips) - items
    assert not set(split.train) & set(split.test)
    assert 0.985 < split.leakage <= 1  # 1 - 0.2 ** 3 = 0.992 on average
    assert f"{split.leakage:.1%}" in split.note


def test_paper_split_has_the_published_class_counts() -> None:
    label = {clip.id: clip.label for clip in emodb()}
    split = split_of(emodb(), "emodb", "paper", versions=(0, 1, 2, 3))
    counts = Counter(label[item.utterance] for item in split.test)
    exact = {name: 0.8 * count for name, count in Counter(label.values()).items()}
    assert all(abs(counts[name] - value) < 1 for name, value in exact.items())


@pytest.mark.parametrize("protocol", ["random", "paper"])
def test_a_seed_decides_and_the_order_of_the_files_does_not(protocol: str) -> None:
    clips = savee()
    one = split_of(clips, "savee", protocol, seed=1)
    assert one == split_of(clips[::-1], "savee", protocol, seed=1)
    assert one.test != split_of(clips, "savee", protocol, seed=2).test


def test_a_folder_with_speakers_is_split_by_them() -> None:
    clips = [utterance(f"{who}{i}", "ab"[i % 2], who) for who in "pqrstuvwxy" for i in range(4)]
    split = split_of(clips, "folder", "speaker")
    parts = [speakers(clips, items) for items in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len(set().union(*parts)) == 10


PARTS = {"p": "train", "q": "train", "r": "validation", "s": "test"}


def with_parts(part_of: dict[str, str]) -> list[Utterance]:
    return [dataclasses.replace(clip, part=part_of[clip.speaker]) for clip in CLIPS]


@pytest.mark.parametrize("protocol", ["speaker", "random"])
def test_a_table_may_name_its_own_parts(protocol: str) -> None:
    split = split_of(with_parts(PARTS), "folder", protocol, versions=(0, 1))
    assert (split.train, split.validation, split.test) == (CLEAN.train, CLEAN.validation, CLEAN.test)
    without_test = split_of(with_parts(PARTS | {"s": "validation"}), "folder", protocol)
    assert without_test.validation == CLEAN.validation + CLEAN.test
    assert not without_test.test


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_table_without_a_part_that_is_needed_is_refused(part: str) -> None:
    parts = {speaker: "test" if other == part else other for speaker, other in PARTS.items()}
    with pytest.raises(DatasetError, match=f"no clip's split is {part}"):
        split_of(with_parts(parts), "folder", "random")


def test_parts_that_share_a_speaker_are_for_random_and_none_are_for_paper() -> None:
    clips = [*with_parts(PARTS)[:-1], dataclasses.replace(CLIPS[-1], part="train")]
    with pytest.raises(DatasetError, match="the speaker split leaks: 1 speakers are in training and in test: s"):
        split_of(clips, "folder", "speaker")
    assert Item("s3", 0) in split_of(clips, "folder", "random").train
    with pytest.raises(ConfigError, match="protocol paper draws its own parts: pass another one, or leave out"):
        split_of(clips, "folder", "paper")


@pytest.mark.parametrize("seed", range(6))
def test_the_only_clip_of_a_label_trains(seed: int) -> None:
    clips = [
        utterance(f"{label}{i}", label, "p") for label, count in (("a", 20), ("b", 1), ("c", 20)) for i in range(count)
    ]
    split = split_of(clips, "folder", "random", seed=seed)
    assert "b0" in {item.utterance for item in split.train}
    assert len(split.test) == 9


@pytest.mark.parametrize("names", ["", "pq"])
def test_a_folder_without_enough_speakers_is_told_what_to_do(names: str) -> None:
    clips = [utterance(f"{i}{who}", "ab"[i % 2], who) for i in range(4) for who in names or [""]]
    with pytest.raises(
        DatasetError, match=f"here are {len(names)}, and {0 if names else 4} clips without: .*--protocol random"
    ):
        split_of(clips, "folder", "speaker")


@pytest.mark.parametrize(
    ("protocol", "fold", "complaint"),
    [
        ("speaker", 4, "folds 0 to 3"),
        ("speaker", None, "choose a fold from 0 to 3"),
        ("random", 0, "one split without folds"),
        ("mine", None, "must be one of speaker, random, paper, not 'mine'"),
    ],
)
def test_wrong_folds_and_protocols_are_refused(protocol: str, fold: int | None, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        split_of(savee(), "savee", protocol, fold=fold)


CLIPS = [utterance(f"{who}{i}", "ab"[i % 2], who) for who in "pqrs" for i in range(4)]
CLEAN = Split(
    protocol="speaker",
    fold=None,
    train=tuple(Item(f"{who}{i}", v) for who in "pq" for i in range(4) for v in (0, 1)),
    validation=tuple(Item(f"r{i}", 0) for i in range(4)),
    test=tuple(Item(f"s{i}", 0) for i in range(4)),
)


def test_a_clean_split_passes_the_leak_check() -> None:
    check_leaks(CLEAN, CLIPS)


@pytest.mark.parametrize(
    ("protocol", "planted", "complaint"),
    [
        ("speaker", {"train": (Item("s0", 2),)}, r"1 recordings are in training and in test: s0"),
        (
            "speaker",
            {"validation": (Item("s1", 0),), "test": (Item("s2", 0),)},
            r"1 speakers are in validation and in test: s",
        ),
        (
            "speaker",
            {"train": (Item("r0", 0),), "validation": (Item("r1", 0),)},
            r"speakers are in training and in valid",
        ),
        ("random", {"train": (Item("s0", 3),)}, r"1 recordings are in training and in test: s0"),
        ("random", {"validation": (Item("p0", 0),)}, r"1 recordings are in training and in validation: p0"),
        ("paper", {"train": (Item("s0", 0),)}, r"1 items are in training and in test: s0 version 0"),
        ("speaker", {"train": (Item("nobody", 0),)}, r"utterances that the corpus lacks: nobody"),
    ],
)
def test_a_planted_leak_is_refused(protocol: str, planted: dict[str, tuple[Item, ...]], complaint: str) -> None:
    split = dataclasses.replace(CLEAN, protocol=protocol, **planted)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=complaint):
        check_leaks(split, CLIPS)


def test_random_may_share_speakers_and_paper_may_share_recordings() -> None:
    shared = dataclasses.replace(CLEAN, protocol="random", train=(Item("s0", 0),), test=(Item("s1", 0),))
    check_leaks(shared, CLIPS)
    same = dataclasses.replace(CLEAN, protocol="paper", train=(Item("s0", 0),), test=(Item("s0", 1),))
    check_leaks(same, CLIPS)
    assert same.leakage == 1
