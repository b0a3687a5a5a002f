"""What people bring of their own: folders and tables in every shape."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from corpus_factory import labelled_folder
from helpers import ROOT
from speech_emotion_vit.errors import DatasetError
from speech_emotion_vit.model.config import FrontendConfig
from speech_emotion_vit.training.data.corpora import CORPORA, read_folder
from speech_emotion_vit.training.data.features import load_data
from speech_emotion_vit.training.data.labels import SYNONYMS, map_labels, meaning, unify
from speech_emotion_vit.training.data.protocols import make_split
from speech_emotion_vit.training.recipes import RECIPES


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def described(root: Path) -> list[tuple[str, str, str]]:
    return [(clip.label, clip.speaker, clip.part) for clip in read_folder(root)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["angry/1.wav", "sad/2.wav"], [("angry", "", ""), ("sad", "", "")]),
        (["Actor_01/angry/1.wav", "Actor_02/sad/2.wav"], [("angry", "Actor_01", ""), ("sad", "Actor_02", "")]),
        (["ann/angry/1.wav", "bob/sad/2.wav"], [("angry", "ann", ""), ("sad", "bob", "")]),
        (["angry/Actor_01/1.wav", "sad/Actor_02/2.wav"], [("angry", "Actor_01", ""), ("sad", "Actor_02", "")]),
        (["train/angry/1.wav", "dev/sad/2.wav"], [("sad", "", "validation"), ("angry", "", "train")]),
        (["Train/dogs/1.wav", "test/cats/2.wav"], [("dogs", "", "train"), ("cats", "", "test")]),
        (["dogs/a/1.wav", "cats/b/2.wav"], [("cats", "", ""), ("dogs", "", "")]),
    ],
)
def test_folders_above_and_below_the_labels(
    tmp_path: Path, names: list[str], expected: list[tuple[str, str, str]]
) -> None:
    assert described(touch(tmp_path, *names)) == expected


@pytest.mark.parametrize(
    ("names", "kind"),
    [(["Actor_01/1.wav", "Actor_02/1.wav"], "speakers"), (["train/1.wav", "test/1.wav"], "a split")],
)
def test_speakers_and_splits_are_no_labels(tmp_path: Path, names: list[str], kind: str) -> None:
    with pytest.raises(DatasetError, match=f"are of {kind}, not of labels.*: put each clip into one, or give a CSV"):
        read_folder(touch(tmp_path, *names))


def test_spellings_of_a_label_become_one_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "Angry/1.wav", "angry/2.wav", "angry/3.wav", "very sad/4.wav", "very_sad/5.wav", "very_sad/6.wav")
    with caplog.at_level(logging.WARNING):
        assert [label for label, _, _ in described(tmp_path)] == ["angry"] * 3 + ["very_sad"] * 3
    assert "Angry is angry, very sad is very_sad" in caplog.text


def test_composed_and_decomposed_accents_are_one_label() -> None:
    assert set(unify(["colère", "cole\u0300re", "cole\u0300re"]).values()) == {"cole\u0300re"}


@pytest.mark.parametrize("lookalike", ["\u0430ngry", "angr\u0443"])
def test_labels_of_other_letters_that_look_the_same_are_refused(tmp_path: Path, lookalike: str) -> None:
    touch(tmp_path, "angry/1.wav", f"{lookalike}/2.wav")
    with pytest.raises(DatasetError, match=r"labels look the same and are not: angry \(angry\), .*\\u04"):
        read_folder(tmp_path)


FRONTEND = FrontendConfig(n_mels=32, columns=32)


def test_labels_are_counted_before_training_and_one_clip_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="speech_emotion_vit")
    root = labelled_folder(tmp_path / "own", ["anger", "fear"], 3)
    changes = {"frontend.n_mels": "32", "frontend.columns": "32", "model.patch_height": "32"}
    recipe = RECIPES["paper"].with_values(changes)
    options = {"frontend": FRONTEND, "network": recipe.network, "cache": tmp_path / "cache"}
    load_data(CORPORA["folder"], root, **options)  # type: ignore[arg-type]
    assert "labels: anger 3, fear 3" in caplog.messages
    labelled_folder(root, ["sadness"], 1)
    with pytest.raises(DatasetError, match=r"the labels sadness have one clip each, .*: add clips, or take"):
        load_data(CORPORA["folder"], root, **options)  # type: ignore[arg-type]
    assert "labels: anger 3, fear 3, sadness 1" in caplog.messages


def test_labels_without_a_test_clip_are_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"dogs/{i}.wav" for i in range(20)), "cats/1.wav")
    split = make_split(read_folder(tmp_path), protocol="random")
    assert {clip.label for clip in split.test} == {"dogs"}
    assert split.note.endswith("not tested, because too few clips are: cats")


def test_a_folder_with_a_test_part_but_no_validation_draws_one(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{label}/{i}.wav" for label in ("dogs", "cats") for i in range(10)), "test/dogs/1.wav")
    split = make_split(read_folder(tmp_path), protocol="random", seed=1)
    assert (len(split.train), len(split.validation), len(split.test)) == (18, 2, 1)
    assert "validation drawn from training with seed 1" in split.note


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path;label\na.wav;fear\n", ("fear", "", "")),
        ("path\tlabel\na.wav\tfear\n", ("fear", "", "")),
        ("\ufeffPath,Label\na.wav,fear\n", ("fear", "", "")),
        ("file,emotion,Speaker ID\na.wav,fear,ann\n", ("fear", "ann", "")),
        ("filename,class,actor\na.wav,fear,7\n", ("fear", "7", "")),
        ("path,label,split\na.wav,fear,val\n", ("fear", "", "validation")),
        ("path,label,split\na.wav,fear,dev\n", ("fear", "", "validation")),
        ("path,label,Split\na.wav,fear,Train\n", ("fear", "", "train")),
        ("file,path,emotion\nignored,a.wav,fear\n", ("fear", "", "")),
        ("path,label\nb\\c.wav,fear\n", ("fear", "", "")),
        ("path,label\n~/a.wav,fear\n", ("fear", "", "")),
        ('path;label;sentence\n"a.wav";fear;"one, two"\n', ("fear", "", "")),
    ],
)
def test_tables_as_people_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: tuple[str, str, str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    touch(tmp_path, "a.wav", "b/c.wav")
    (tmp_path / "clips.csv").write_text(text, encoding="utf-8")
    assert described(tmp_path / "clips.csv") == [expected]


def test_a_table_without_a_header_is_told_what_its_first_line_holds(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("a.wav,angry\nb.wav,sad\n")
    with pytest.raises(DatasetError, match=r"first line must name path,label, but holds 'a\.wav,angry'"):
        read_folder(tmp_path / "clips.csv")


def test_words_for_the_same_emotion_are_mapped_where_that_is_clear() -> None:
    assert [meaning(word) for word in ("Angry", "JOY", "calm", "surprised", "hope")] == [
        "anger",
        "happiness",
        "neutral",
        "surprise",
        "hope",
    ]
    assert map_labels(["angry", "sad", "calm", "hope"], ["anger", "neutral", "sadness"]) == {
        "angry": "anger",
        "sad": "sadness",
        "calm": "neutral",
    }
    # A model that tells calm from neutral is not asked to forget it, and one with two words for one is not guessed at.
    assert map_labels(["calm", "neutral"], ["calm", "neutral"]) == {"calm": "calm", "neutral": "neutral"}
    assert map_labels(["happy"], ["joy", "happiness"]) == {}


def test_the_documentation_shows_the_table_of_words() -> None:
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    for name, words in SYNONYMS.items():
        assert f"| {name} | {', '.join(words)} |" in page
