from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path, PurePath

import pytest

from speech_emotion_vit.errors import ConfigError, DatasetError
from speech_emotion_vit.training.data.corpora import CORPORA, FREE, LABELLED, Utterance
from speech_emotion_vit.training.data.protocols import (
    Split,
    Utterances,
    check_leaks,
    make_split,
    number_of_folds,
    parts_to_score,
    score_all,
    split_corpora,
)

FOUR = ("original", "noise", "shift", "speed")
STRANGERS = tuple(name for name in LABELLED if name not in FREE)


def utterance(name: str, label: str, speaker: str) -> Utterance:
    return Utterance(id=name, path=Path(name), label=label, speaker=speaker)


def published(*names: str) -> list[Utterance]:
    """All clips of some corpora, as their readers would make them of the files."""
    clips = []
    for name in names:
        for id_ in sorted(CORPORA[name].published):
            stem = id_.removeprefix(f"{name}/")
            said = CORPORA[name].parse(PurePath(stem))
            assert said is not None
            clip = utterance(id_, said.label, f"{name}/{said.speaker}")
            clips.append(dataclasses.replace(clip, sentence=said.sentence, corpus=name))
    return clips


ALL = published(*LABELLED)


def of(*names: str) -> list[Utterance]:
    return [clip for clip in ALL if clip.corpus in names]


def speakers(utterances: Utterances) -> set[str]:
    return {utterance.speaker for utterance in utterances}


def test_crema_d_speaker_split_is_the_official_one() -> None:
    split = make_split(of("crema-d"), protocol="speaker")
    parts = [speakers(part) for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [56, 18, 17]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    # Official: 4573, 1476, 1393. Six double-labelled clips are training speakers', the silent one a test speaker's.
    assert [len(split.train), len(split.validation), len(split.test)] == [4567, 1476, 1392]
    assert set(split.left_out) == set(CORPORA["crema-d"].defects)
    assert split.leakage == 0


@pytest.mark.parametrize(("corpus", "folds"), [("savee", 4), ("emodb", 10), ("emovo", 6), ("casia", 4)])
def test_leave_one_speaker_out(corpus: str, folds: int) -> None:
    clips = of(corpus)
    names = sorted(speakers(tuple(clips)))
    assert number_of_folds(clips, "speaker") == folds == len(names)
    tested: Counter[str] = Counter()
    for fold in range(folds):
        split = make_split(clips, protocol="speaker", fold=fold)
        assert speakers(split.test) == {names[fold]}
        assert speakers(split.validation) == {names[(fold + 1) % folds]}
        assert len(speakers(split.train)) == folds - 2
        assert len(split.train) + len(split.validation) + len(split.test) == len(clips)
        tested.update(clip.id for clip in split.test)
    assert set(tested.values()) == {1}
    assert len(tested) == len(clips)


def test_folds_of_several_corpora_split_each_its_own_way() -> None:
    clips = of("crema-d", "emodb", "savee")
    assert number_of_folds(clips, "speaker") == 10
    tested: Counter[str] = Counter()
    for fold in range(10):
        split = make_split(clips, protocol="speaker", fold=fold)
        parts = [speakers(part) for part in (split.train, split.validation, split.test)]
        by_corpus = [Counter(name.split("/")[0] for name in part) for part in parts]
        savee_too = {"savee": 1} if fold < 4 else {}
        assert by_corpus[0] == {"crema-d": 56, "emodb": 9, "savee": 3 if fold < 4 else 4}
        assert by_corpus[1] == {"crema-d": 18}
        assert by_corpus[2] == {"crema-d": 17, "emodb": 1} | savee_too
        assert len(split.train) + len(split.validation) + len(split.test) + len(split.left_out) == len(clips)
        assert "crema-d/1048" in parts[2]
        tested.update(parts[2])
    assert {name: count for name, count in tested.items() if "crema" not in name} == {
        clip.speaker: 1 for clip in clips if clip.corpus != "crema-d"
    }


def test_final_of_several_corpora_still_tests_on_crema_d() -> None:
    split = make_split(of("crema-d", "emodb", "savee"), protocol="speaker", fold="final")
    assert (len(split.train), len(split.validation), len(split.test)) == (4567 + 1476 + 535 + 480, 0, 1392)
    assert {clip.corpus for clip in split.test} == {"crema-d"}


def test_final_of_crema_d_trains_on_validation_speakers_and_still_tests_on_the_others() -> None:
    split, usual = (make_split(of("crema-d"), protocol="speaker", fold=fold) for fold in ("final", None))
    assert set(split.train) == {*usual.train, *usual.validation}
    assert (split.validation, split.test) == ((), usual.test)


def test_final_trains_on_everything_and_tests_nothing() -> None:
    split = make_split(of("savee"), protocol="speaker", fold="final")
    assert (len(split.train), len(split.validation), len(split.test)) == (480, 0, 0)


def test_each_corpus_is_left_out_in_turn_and_scored_over_shared_labels() -> None:
    assert number_of_folds(ALL, "corpus") == len(LABELLED) == 6
    official = CORPORA["crema-d"]
    sizes = {}
    for fold, name in enumerate(LABELLED):
        split = make_split(ALL, protocol="corpus", fold=fold)
        assert {clip.corpus for clip in split.test} == {name}
        assert {clip.corpus for clip in split.train} == set(LABELLED) - {name}
        assert speakers(split.validation) == (set() if name == "crema-d" else official.validation_speakers)
        assert speakers(split.train + split.validation + split.test).isdisjoint(official.test_speakers)
        taught = {clip.label for clip in split.train}
        assert {clip.label for clip in split.test} == set(split.labels[name]) == taught & set(CORPORA[name].labels)
        sizes[name] = len(split.test)
    assert sizes == {"crema-d": 6043, "emodb": 535 - 81, "savee": 480, "emovo": 588, "casia": 1200, "urdu": 400}
    assert "without 81 boredom, which no training clip has" in make_split(ALL, protocol="corpus", fold=1).note


def test_what_a_model_for_everybody_may_hear_is_tested_on_all_else() -> None:
    split = split_corpora(ALL, train=FREE, test=STRANGERS)
    assert FREE == ("crema-d", "emodb")
    assert {clip.corpus for clip in split.train} == set(FREE)
    assert Counter(clip.corpus for clip in split.test) == {"savee": 420, "emovo": 504, "casia": 1000, "urdu": 400}
    assert split.labels["urdu"] == ("anger", "happiness", "neutral", "sadness")
    assert "surprise" not in split.labels["savee"]
    assert split.protocol == "corpus"
    assert set(split.left_out) == set(CORPORA["crema-d"].defects)


def test_savee_is_also_scored_on_sentences_that_do_not_tell_the_emotion() -> None:
    parts = parts_to_score(split_corpora(ALL, train=FREE, test=STRANGERS).test)
    assert list(parts) == ["savee", "savee, common sentences", "emovo", "casia", "urdu"]
    common = parts["savee, common sentences"]
    assert Counter(clip.label for clip in common) == dict.fromkeys(CORPORA["crema-d"].labels, 12)
    assert {clip.id[-2:] for clip in common} == {clip.sentence for clip in common} == {"01", "02", "03"}


def test_final_of_all_corpora_trains_on_all_but_official_test_speakers() -> None:
    split = make_split(ALL, protocol="corpus", fold="final")
    assert (split.validation, split.test) == ((), ())
    assert len(split.train) == 6043 + 535 + 480 + 588 + 1200 + 400


def test_a_whole_corpus_can_be_asked_of_a_stranger() -> None:
    split = score_all(of("crema-d", "urdu"), "corpus")
    assert (len(split.test), split.train, split.validation) == (6043 + 400, (), ())
    assert "official test speakers" in split.note


@pytest.mark.parametrize(
    ("train", "test", "complaint"),
    [
        (["emodb"], ["emodb"], "emodb would be trained and tested on"),
        (["emodb"], ["iemocap"], "iemocap are not there"),
        (["wakewords"], ["emodb"], "emodb shares 0 labels with wakewords: a score needs 2"),
    ],
)
def test_corpora_that_cannot_be_compared_are_refused(train: list[str], test: list[str], complaint: str) -> None:
    word = Utterance(id="wakewords/alexa/1", path=Path("1"), label="", speaker="", corpus="wakewords")
    with pytest.raises((ConfigError, DatasetError), match=complaint):
        split_corpora([*of("emodb"), word], train=train, test=test)


def test_one_corpus_cannot_be_left_out_of_itself() -> None:
    with pytest.raises(DatasetError, match="needs two corpora, here is emodb alone"):
        make_split(of("emodb"), protocol="corpus")


def test_a_planted_leak_between_corpora_is_refused() -> None:
    split = split_corpora(ALL, train=FREE, test=["urdu"])
    one = dataclasses.replace(split.test[0], id="urdu/another", speaker="urdu/another")
    with pytest.raises(DatasetError, match="1 corpora are in train and in test: urdu"):
        check_leaks(dataclasses.replace(split, train=(*split.train, one)))
    one = dataclasses.replace(split.validation[0], id="crema-d/another")
    with pytest.raises(DatasetError, match="1 speakers are in train and in validation: crema-d/10"):
        check_leaks(dataclasses.replace(split, train=(*split.train, one)))


def test_random_split_is_stratified_and_tests_originals_only() -> None:
    split = make_split(of("savee"), protocol="random", versions=FOUR, seed=3)
    assert Counter(clip.label for clip in split.test) == {
        **dict.fromkeys(set(CORPORA["savee"].labels) - {"neutral"}, 12),
        "neutral": 24,
    }
    assert {clip.version for clip in split.test + split.validation} == {"original"}
    assert Counter(clip.version for clip in split.train) == dict.fromkeys(FOUR, 480 - 96 - len(split.validation))
    assert split.leakage == 0
    train, test = ({clip.recording for clip in part} for part in (split.train, split.test))
    assert not train & test


@pytest.mark.parametrize(("corpus", "samples"), [("crema-d", 5954), ("emodb", 428), ("savee", 384)])
def test_paper_split_has_the_published_size_and_leaks(corpus: str, samples: int) -> None:
    clips = of(corpus)
    split = make_split(clips, protocol="paper", versions=FOUR)
    assert len(split.test) == samples
    assert len(split.train) == 4 * len(clips) - samples
    assert not set(split.train) & set(split.test)
    assert 0.975 < split.leakage <= 1  # 1 - 0.2 ** 3 = 0.992 on average
    assert f"{split.leakage:.1%}" in split.note


def test_paper_split_has_the_published_class_counts() -> None:
    split = make_split(of("emodb"), protocol="paper", versions=FOUR)
    counts = Counter(clip.label for clip in split.test)
    exact = {name: 0.8 * count for name, count in Counter(clip.label for clip in of("emodb")).items()}
    assert all(abs(counts[name] - value) < 1 for name, value in exact.items())


@pytest.mark.parametrize("protocol", ["random", "paper"])
def test_a_seed_decides_and_the_order_of_the_files_does_not(protocol: str) -> None:
    one, again, other = (
        make_split(clips, protocol=protocol, seed=seed)  # type: ignore[arg-type]
        for clips, seed in ((of("savee"), 1), (of("savee")[::-1], 1), (of("savee"), 2))
    )
    assert one == again
    assert one.test != other.test


def test_a_folder_with_speakers_is_split_by_them() -> None:
    clips = [utterance(f"{who}{i}", "ab"[i % 2], who) for who in "pqrstuvwxy" for i in range(4)]
    split = make_split(clips, protocol="speaker")
    parts = [speakers(part) for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len(set().union(*parts)) == 10


CLIPS = [utterance(f"{who}{i}", "ab"[i % 2], who) for who in "pqrs" for i in range(4)]


def clip(name: str, version: str = "original") -> Utterance:
    return next(each for each in CLIPS if each.id == name).altered(version)


CLEAN = Split(
    protocol="speaker",
    train=tuple(clip(f"{who}{i}", version) for who in "pq" for i in range(4) for version in ("original", "noise")),
    validation=tuple(clip(f"r{i}") for i in range(4)),
    test=tuple(clip(f"s{i}") for i in range(4)),
)
PARTS = {"p": "train", "q": "train", "r": "validation", "s": "test"}


def with_parts(part_of: dict[str, str]) -> list[Utterance]:
    return [dataclasses.replace(each, part=part_of[each.speaker]) for each in CLIPS]


@pytest.mark.parametrize("protocol", ["speaker", "random"])
def test_a_table_may_name_its_own_parts(protocol: str) -> None:
    def names(part: Utterances) -> list[str]:
        return [each.id for each in part]

    split = make_split(with_parts(PARTS), protocol=protocol, versions=FOUR[:2])  # type: ignore[arg-type]
    for part in ("train", "validation", "test"):
        assert names(getattr(split, part)) == names(getattr(CLEAN, part))
    without_test = make_split(with_parts(PARTS | {"s": "validation"}), protocol=protocol)  # type: ignore[arg-type]
    assert names(without_test.validation) == names(CLEAN.validation + CLEAN.test)
    assert not without_test.test


@pytest.mark.parametrize(("part", "protocol"), [("train", "random"), ("validation", "speaker")])
def test_a_table_without_a_part_that_is_needed_is_refused(part: str, protocol: str) -> None:
    parts = {speaker: "test" if other == part else other for speaker, other in PARTS.items()}
    with pytest.raises(DatasetError, match=f"no clip's split is {part}"):
        make_split(with_parts(parts), protocol=protocol)  # type: ignore[arg-type]


def test_parts_that_share_a_speaker_are_for_random_and_none_are_for_paper() -> None:
    clips = [*with_parts(PARTS)[:-1], dataclasses.replace(CLIPS[-1], part="train")]
    with pytest.raises(DatasetError, match="the speaker split leaks: 1 speakers are in train and in test: s"):
        make_split(clips, protocol="speaker")
    assert clips[-1] in make_split(clips, protocol="random").train
    with pytest.raises(ConfigError, match="protocol paper draws its own parts: pass another one, or leave out"):
        make_split(clips, protocol="paper")


@pytest.mark.parametrize("seed", range(6))
def test_the_only_clip_of_a_label_trains(seed: int) -> None:
    clips = [
        utterance(f"{label}{i}", label, "p") for label, count in (("a", 20), ("b", 1), ("c", 20)) for i in range(count)
    ]
    split = make_split(clips, protocol="random", seed=seed)
    assert "b0" in {each.id for each in split.train}
    assert len(split.test) == 9


@pytest.mark.parametrize("names", ["", "pq"])
def test_a_folder_without_enough_speakers_is_told_what_to_do(names: str) -> None:
    clips = [utterance(f"{i}{who}", "ab"[i % 2], who) for i in range(4) for who in names or [""]]
    with pytest.raises(
        DatasetError, match=f"here are {len(names)}, and {0 if names else 4} clips without: .*--protocol random"
    ):
        make_split(clips, protocol="speaker")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"protocol": "speaker", "fold": 4}, "folds 0 to 3"),
        ({"protocol": "speaker"}, "choose a fold from 0 to 3"),
        ({"protocol": "random", "fold": 0}, "one split without folds"),
    ],
)
def test_folds_that_are_not_there_are_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make_split(of("savee"), **options)  # type: ignore[arg-type]


def test_a_clean_split_passes_the_leak_check() -> None:
    check_leaks(CLEAN)


@pytest.mark.parametrize(
    ("protocol", "planted", "complaint"),
    [
        ("speaker", {"train": (clip("s0", "noise"),)}, r"1 recordings are in train and in test: s0"),
        (
            "speaker",
            {"validation": (clip("s1"),), "test": (clip("s2"),)},
            r"1 speakers are in validation and in test: s",
        ),
        (
            "speaker",
            {"train": (clip("r0"),), "validation": (clip("r1"),)},
            r"speakers are in train and in valid",
        ),
        ("random", {"train": (clip("s0", "speed"),)}, r"1 recordings are in train and in test: s0"),
        ("random", {"validation": (clip("p0"),)}, r"1 recordings are in train and in validation: p0"),
        ("paper", {"train": (clip("s0"),)}, r"1 samples are in train and in test: s0"),
    ],
)
def test_a_planted_leak_is_refused(protocol: str, planted: dict[str, Utterances], complaint: str) -> None:
    split = dataclasses.replace(CLEAN, protocol=protocol, **planted)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=complaint):
        check_leaks(split)


def test_random_may_share_speakers_and_paper_may_share_recordings() -> None:
    check_leaks(dataclasses.replace(CLEAN, protocol="random", train=(clip("s0"),), test=(clip("s1"),)))
    same = dataclasses.replace(CLEAN, protocol="paper", train=(clip("s0"),), test=(clip("s0", "noise"),))
    check_leaks(same)
    assert same.leakage == 1
