from __future__ import annotations

import errno
import logging
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from corpus_factory import labelled_csv, labelled_folder, write_clip
from speech_emotion_vit.errors import ConfigError, DatasetError
from speech_emotion_vit.training.data.corpora import CORPORA, Utterance, combine, find_corpus, read_folder
from speech_emotion_vit.training.data.features import load_data
from speech_emotion_vit.training.recipes import RECIPES, Recipe


def touch(root: Path, *names: str) -> Path:
    """Readers go by names alone, so empty files do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(name: str, folder: Path) -> list[Utterance]:
    return CORPORA[name].read(folder)


LAYOUTS = {
    "crema-d": lambda i: f"AudioWAV/{i}.wav",
    "emodb": lambda i: f"wav/{i}.wav",
    "savee": lambda i: f"AudioData/{i[:2]}/{i[3:]}.wav",
    "emovo": lambda i: f"{i.split('-')[1]}/{i}.opus",
    "casia": lambda i: i.replace("-", "/") + ".flac",
    "urdu": lambda i: f"{EMOTIONS[i.split('_')[2][0]]}/{i}.wav",
}
EMOTIONS = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad"}


def whole_corpus(root: Path, name: str) -> Path:
    return touch(root, *(LAYOUTS[name](i.removeprefix(f"{name}/")) for i in CORPORA[name].published))


def test_crema_d_names_carry_everything(tmp_path: Path) -> None:
    touch(tmp_path, "AudioWAV/1002_IEO_SAD_LO.wav", "AudioWAV/1001_DFA_ANG_XX.flac")
    first, second = read("crema-d", tmp_path)
    assert (first.id, first.label, first.speaker, first.sentence) == (
        "crema-d/1001_DFA_ANG_XX",
        "anger",
        "crema-d/1001",
        "DFA",
    )
    assert (second.id, second.label, second.speaker, second.sentence) == (
        "crema-d/1002_IEO_SAD_LO",
        "sadness",
        "crema-d/1002",
        "IEO",
    )
    assert second.path == tmp_path / "AudioWAV" / "1002_IEO_SAD_LO.wav"


def test_crema_d_name_variant_gets_its_published_id(tmp_path: Path) -> None:
    touch(tmp_path, "1040_ITH_SAD_X.wav")
    (utterance,) = read("crema-d", tmp_path)
    assert utterance.id == "crema-d/1040_ITH_SAD_XX"
    assert utterance.path.name == "1040_ITH_SAD_X.wav"


def test_emodb_names_carry_everything(tmp_path: Path) -> None:
    touch(tmp_path, *(f"wav/03a01{code}a.wav" for code in "WLEAFTN"))
    found = {utterance.id[-2]: utterance.label for utterance in read("emodb", tmp_path)}
    assert found == {
        "W": "anger",
        "L": "boredom",
        "E": "disgust",
        "A": "fear",
        "F": "happiness",
        "T": "sadness",
        "N": "neutral",
    }
    assert {(u.speaker, u.sentence) for u in read("emodb", tmp_path)} == {("emodb/03", "a01")}


def test_savee_nested_and_flat_are_the_same_corpus(tmp_path: Path) -> None:
    names = {"a01": "anger", "d02": "disgust", "f04": "fear", "h04": "happiness", "n30": "neutral"}
    names |= {"sa05": "sadness", "su15": "surprise"}
    nested = touch(tmp_path / "nested", *(f"AudioData/JE/{name}.wav" for name in names))
    flat = touch(tmp_path / "flat", *(f"JE_{name}.flac" for name in names))
    described = [{(u.id, u.label, u.speaker, u.sentence) for u in read("savee", folder)} for folder in (nested, flat)]
    assert (
        described[0]
        == described[1]
        == {
            (f"savee/JE_{name}", label, "savee/JE", "01" if name == "a01" else "02" if name == "d02" else name)
            for name, label in names.items()
        }
    )


def test_savee_ignores_the_same_names_under_other_speakers(tmp_path: Path) -> None:
    touch(tmp_path, "AudioData/DC/a01.wav", "AudioData/XX/a01.wav")
    assert [utterance.id for utterance in read("savee", tmp_path)] == ["savee/DC_a01"]


SIX = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")


@pytest.mark.parametrize(
    ("name", "labels", "speakers"),
    [
        (
            "crema-d",
            {"anger": 1271, "disgust": 1271, "fear": 1271, "happiness": 1271, "neutral": 1087, "sadness": 1271},
            91,
        ),
        (
            "emodb",
            {
                "anger": 127,
                "boredom": 81,
                "disgust": 46,
                "fear": 69,
                "happiness": 71,
                "neutral": 79,
                "sadness": 62,
            },
            10,
        ),
        (
            "savee",
            {
                "anger": 60,
                "disgust": 60,
                "fear": 60,
                "happiness": 60,
                "neutral": 120,
                "sadness": 60,
                "surprise": 60,
            },
            4,
        ),
        ("emovo", dict.fromkeys((*SIX, "surprise"), 84), 6),
        ("casia", dict.fromkeys(("anger", "fear", "happiness", "neutral", "sadness", "surprise"), 200), 4),
        ("urdu", dict.fromkeys(("anger", "happiness", "neutral", "sadness"), 100), 29),
    ],
)
def test_a_whole_corpus_has_the_published_composition_and_no_remarks(
    tmp_path: Path, name: str, labels: dict[str, int], speakers: int
) -> None:
    corpus = CORPORA[name]
    utterances = corpus.read(whole_corpus(tmp_path, name))
    assert Counter(utterance.label for utterance in utterances) == labels
    assert len({utterance.speaker for utterance in utterances}) == speakers
    assert [utterance.id for utterance in utterances] == sorted(utterance.id for utterance in utterances)
    assert corpus.remarks(tmp_path, utterances) == []
    assert corpus.labels == tuple(sorted(labels))
    assert all(utterance.id.startswith(f"{name}/") for utterance in utterances)
    assert all(utterance.speaker.startswith(f"{name}/") for utterance in utterances)


@pytest.mark.parametrize(
    ("name", "gone", "added", "stranger"),
    [
        ("crema-d", "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1001_DFA_ANG_HI.wav", "AudioWAV/notes.wav"),
        ("emodb", "wav/03a01Fa.wav", "wav/03a01Ff.wav", "wav/17a01Fa.wav"),
        ("savee", "AudioData/DC/a01.wav", "AudioData/DC/a16.wav", "AudioData/DC/x01.wav"),
        ("urdu", "Angry/SM1_F1_A01.wav", "Angry/SM1_F1_A0101.wav", "Angry/SM1_A01.wav"),
    ],
)
def test_missing_and_extra_files_are_named(tmp_path: Path, name: str, gone: str, added: str, stranger: str) -> None:
    corpus = CORPORA[name]
    whole_corpus(tmp_path, name)
    (tmp_path / gone).unlink()
    touch(tmp_path, added, stranger)
    missing, extra, unknown = corpus.remarks(tmp_path, corpus.read(tmp_path))
    prefix = f"{name}/" + ("DC_" if name == "savee" else "")
    assert missing.endswith(f"missing: {prefix}{Path(gone).stem}")
    assert missing.startswith(f"1 of {len(corpus.published)} ")
    assert extra.endswith(f": {prefix}{Path(added).stem}")
    assert unknown.endswith(f": {Path(stranger).name}")


def test_many_missing_files_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "03a01Fa.wav")
    (remark,) = CORPORA["emodb"].remarks(tmp_path, read("emodb", tmp_path))
    assert remark.startswith("534 of 535 utterances are missing: emodb/03a01Nc, ")
    assert remark.endswith(" and 526 more")


def test_several_corpora_are_read_from_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("crema-d", "emodb", "savee"):
        whole_corpus(tmp_path / name, name)
    monkeypatch.setenv("SPEECH_EMOTION_VIT_DATA", str(tmp_path))
    corpus, folder = find_corpus("crema-d+emodb+savee", None)
    assert folder == tmp_path
    utterances = corpus.read(folder)
    assert Counter(utterance.corpus for utterance in utterances) == {"crema-d": 7442, "emodb": 535, "savee": 480}
    assert len({utterance.id for utterance in utterances}) == len(utterances)
    assert corpus.remarks(folder, utterances) == []
    assert corpus.defects == CORPORA["crema-d"].defects
    assert (corpus.free, combine(["crema-d", "emodb"]).free) == (False, True)


def test_several_corpora_of_which_one_is_missing_or_unknown(tmp_path: Path) -> None:
    (tmp_path / "emodb").mkdir()
    with pytest.raises(DatasetError, match=r"has no folder crema-d and no folder savee: expected is the folders"):
        combine(["crema-d", "emodb", "savee"]).read(tmp_path)
    with pytest.raises(ConfigError, match="named twice"):
        combine(["emodb", "emodb"])
    for name in ("iemocap", "emodb+", "emodb+folder"):
        with pytest.raises(ConfigError, match=r"must be one of crema-d, emodb, .*several joined by \+, or folder, not"):
            find_corpus(name, tmp_path)


def test_flat_copies_are_the_same_corpora(tmp_path: Path) -> None:
    flat = {
        "emovo": ("f1/rab-f1-b1.wav", "rab-f1-b1.wav"),
        "casia": ("wangzhe/angry/201.wav", "201-angry-wangzhe.wav"),
        "urdu": ("Angry/SM1_F1_A01.wav", "SM1_F1_A01.wav"),
    }
    for name, copies in flat.items():
        for number, copy in enumerate(copies):
            touch(tmp_path / name / str(number), copy)
        one, other = (read(name, tmp_path / name / str(number))[0] for number in (0, 1))
        assert (one.id, one.label, one.speaker, one.sentence) == (other.id, other.label, other.speaker, other.sentence)
        assert one.label == "anger"


def test_wake_words_have_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "alexa/1.flac", "smart mirror/0d26d6b4-5c27.flac", "noise/1.flac")
    found = read("wakewords", tmp_path)
    assert [(u.id, u.label, u.speaker, u.sentence) for u in found] == [
        ("wakewords/alexa/1", "", "", "alexa"),
        ("wakewords/smart_mirror/0d26d6b4-5c27", "", "", "smart_mirror"),
    ]


def test_every_corpus_says_what_it_is_and_what_may_be_done_with_it() -> None:
    for name, corpus in CORPORA.items():
        assert all((corpus.title, corpus.language, corpus.source, corpus.license, corpus.layout)), name
        assert corpus.citation or name == "folder"
        assert set(corpus.defects) <= corpus.published
        assert corpus.test_speakers.isdisjoint(corpus.validation_speakers)
        assert bool(corpus.test_speakers) == bool(corpus.official_split)
    assert [name for name, corpus in CORPORA.items() if corpus.free] == ["crema-d", "emodb", "wakewords", "folder"]


def test_known_defects_are_in_the_published_corpus() -> None:
    corpus = CORPORA["crema-d"]
    assert len(corpus.defects) == 7
    assert set(corpus.defects) <= corpus.published
    assert corpus.defects["crema-d/1076_MTI_SAD_XX"] == "all samples are zero"
    assert corpus.defects["crema-d/1006_TIE_HAP_XX"].endswith("1006_TIE_NEU_XX")
    assert corpus.defects["crema-d/1006_TIE_NEU_XX"].endswith("1006_TIE_HAP_XX")


@pytest.mark.parametrize("name", CORPORA)
def test_a_folder_without_the_corpus_says_what_is_expected(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "README.txt", "hello.wav")
    with pytest.raises(DatasetError, match=r"expected is .+"):
        read(name, tmp_path)


def test_two_copies_of_an_utterance_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a/03a01Fa.wav", "b/03a01Fa.flac")
    with pytest.raises(DatasetError, match=r"more than once: emodb/03a01Fa: keep one"):
        read("emodb", tmp_path)


def test_folder_of_ones_own(tmp_path: Path) -> None:
    labelled_folder(tmp_path, ["anger", "neutral"], 2)
    write_clip(tmp_path / "anger" / "deeper" / "x.flac", "anger")
    found = read_folder(tmp_path)
    assert [(u.id, u.label) for u in found] == [
        ("anger/00", "anger"),
        ("anger/01", "anger"),
        ("anger/deeper/x", "anger"),
        ("neutral/00", "neutral"),
        ("neutral/01", "neutral"),
    ]


def test_linked_folders_are_read_once_and_loops_end(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "elsewhere", ["fear"], 2)
    labelled_folder(tmp_path / "own", ["anger"], 2)
    (tmp_path / "own" / "fear").symlink_to(tmp_path / "elsewhere" / "fear")
    (tmp_path / "own" / "anger" / "again").symlink_to(tmp_path / "own")
    assert [u.id for u in read_folder(tmp_path / "own")] == ["anger/00", "anger/01", "fear/00", "fear/01"]


def test_what_a_folder_holds_and_nobody_reads_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "anger/a.wav", "joy/b.wav", "top.wav", "__MACOSX/joy/c.wav", "joy/._b.wav", "sad/d.wav")
    (tmp_path / "joy" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    listdir = os.listdir

    def refuse(place: str) -> list[str]:
        if os.path.basename(place) == "sad":
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return listdir(place)

    monkeypatch.setattr(os, "listdir", refuse)
    assert [u.id for u in read_folder(tmp_path)] == ["anger/a", "joy/b"]
    assert CORPORA["folder"].remarks(tmp_path, read_folder(tmp_path)) == [
        "1 folders cannot be read and are left out: sad",
        "1 names of audio lead to no file and are left out: joy/gone.wav",
        "1 clips beside the folders of labels have none and are left out: top.wav",
    ]
    with pytest.raises(DatasetError, match=r"sad: cannot be read \(Permission denied\): check its permissions"):
        read_folder(tmp_path / "sad")


def test_labels_do_not_depend_on_the_order_of_the_system(tmp_path: Path) -> None:
    touch(tmp_path, "joy/b.wav")
    (tmp_path / "anger" / "deep").mkdir(parents=True)
    (tmp_path / "anger" / "deep" / "er").symlink_to(tmp_path / "joy")
    assert [(u.id, u.label) for u in read_folder(tmp_path)] == [("joy/b", "joy")]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_names_that_are_no_utf_8_have_ids_that_are(tmp_path: Path) -> None:
    touch(tmp_path, "joy/fr\udcf6h.wav")
    (utterance,) = read_folder(tmp_path)
    assert utterance.id == r"joy/fr\udcf6h"
    assert utterance.path.is_file()


def wanted(recipe: Recipe) -> dict[str, Any]:
    return {"frontend": recipe.frontend, "versions": recipe.versions, "network": recipe.network}


@pytest.mark.parametrize("label", ["joy\u200b", "an\nger", "fr\udcf6h", "label", "speaker"])
def test_a_label_that_no_model_can_have_is_refused_first(tmp_path: Path, label: str) -> None:
    touch(tmp_path, "anger/a.wav", f"{label}/a.wav")
    with pytest.raises(DatasetError, match=r"a label must .*a\.wav: rename it") as error:
        load_data(CORPORA["folder"], tmp_path, **wanted(RECIPES["paper"]), cache=tmp_path / "cache")
    assert str(error.value).isprintable()


def test_labels_without_a_clip_that_can_be_read_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelled_folder(tmp_path / "own", ["anger", "fear"], 2)
    touch(tmp_path / "own", "notes/empty.wav")
    changes = {"frontend.n_mels": "32", "frontend.columns": "32", "model.patch_height": "32"}
    options = {**wanted(RECIPES["paper"].with_values(changes)), "versions": ("original",), "cache": tmp_path / "cache"}
    with caplog.at_level(logging.INFO, logger="speech_emotion_vit"):
        data = load_data(CORPORA["folder"], tmp_path / "own", **options)
    assert data.labels == ("anger", "fear")
    assert "1 labels are left out because none of their clips can be read: notes" in caplog.text
    for clip in (tmp_path / "own" / "fear").iterdir():
        clip.write_bytes(b"")
    with pytest.raises(DatasetError, match="only one label is there, anger"):
        load_data(CORPORA["folder"], tmp_path / "own", **options)


def test_csv_of_ones_own(tmp_path: Path) -> None:
    found = read_folder(labelled_csv(tmp_path, ["fear"], ["ann", "bob"], 1))
    assert [(u.id, u.label, u.speaker, u.sentence) for u in found] == [
        ("audio/ann_fear_0.flac", "fear", "ann", "s0"),
        ("audio/bob_fear_0.flac", "fear", "bob", "s0"),
    ]
    assert all(utterance.path.is_file() for utterance in found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("what,label\na.wav,fear\n", r"lacks the columns \['path'\]: .* but holds 'what,label'"),
        ("path,label\nnone.wav,fear\n", r"line 2: no such file: .*none\.wav"),
        ("path,label\na.wav,\n", r"line 2: the label is empty"),
        ("path,label\na.wav,fear\na.wav,anger\n", r"line 3: .*a\.wav is the file of line 2: keep one"),
        ("path,label\na.wav,fear\nb/../a.wav,anger\n", r"line 3: .*a\.wav is the file of line 2: keep one"),
        ("path,label\n", r"expected is"),
        ("path,label\n\n\na.wav,fear\nnone.wav,fear\n", r"line 5: no such file"),
        ('path,label,speaker\na.wav,fear,"an\nna"\nnone.wav,fear,b\n', r"line 4: no such file"),
        (
            "path,label,split\na.wav,fear,test\nb/c.wav,fear,later\n",
            r"line 3: split is 'later': write train, validation or test",
        ),
        ("path,label,split\na.wav,fear,\n", r"line 2: split is '': .* or leave the column out"),
    ],
)
def test_a_wrong_csv_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    touch(tmp_path, "a.wav", "b/c.wav")
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(DatasetError, match=complaint):
        read_folder(tmp_path / "clips.csv")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_csv_of_another_encoding_is_told_what_to_do(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "clips.csv").write_text("path,label\nfröhlich.wav,happiness\n", encoding=encoding)
    with pytest.raises(
        DatasetError, match=r"clips\.csv: cannot be read as a table .*: give a folder, or save .* UTF-8"
    ):
        read_folder(tmp_path / "clips.csv")


def test_blanks_around_the_values_of_a_csv_make_no_other_speaker(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    lines = ["path,label,speaker,sentence,split", "a.wav,fear,ann,one,test", " b.wav ,fear , ann,one, test "]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    found = read_folder(tmp_path / "clips.csv")
    assert [(u.id, u.label, u.speaker, u.sentence, u.part) for u in found] == [
        ("a.wav", "fear", "ann", "one", "test"),
        ("b.wav", "fear", "ann", "one", "test"),
    ]


def test_a_corpus_is_looked_for_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECH_EMOTION_VIT_DATA", str(tmp_path / "env"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(
        DatasetError, match=r"SAVEE is obtained from http.*research use.*expected is AudioData/DC"
    ) as error:
        find_corpus("savee", None)
    assert str(tmp_path / "env" / "savee") in str(error.value)
    assert "\n" not in str(error.value)
    (tmp_path / "env" / "savee").mkdir(parents=True)
    assert find_corpus("savee", None) == (CORPORA["savee"], tmp_path / "env" / "savee")
    (tmp_path / "own").mkdir()
    assert find_corpus("savee", tmp_path / "own")[1] == tmp_path / "own"
    with pytest.raises(DatasetError, match="no such folder"):
        find_corpus("savee", tmp_path / "nowhere")


def test_own_clips_are_what_a_search_of_a_folder_finds_and_the_rest_is_counted(tmp_path: Path) -> None:
    for name in ("joy/a.mov", "joy/b.mpga", "anger/c.WAVE", "anger/d.ts", "anger/notes.txt", "list.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "anger" / "d.ts").write_bytes((b"G" + bytes(187)) * 3)
    utterances = read_folder(tmp_path)
    assert [u.path.name for u in utterances] == ["c.WAVE", "d.ts", "a.mov", "b.mpga"]
    assert CORPORA["folder"].remarks(tmp_path, utterances) == [
        "2 files are passed over, not named like audio: 1 .pdf, 1 .txt"
    ]
