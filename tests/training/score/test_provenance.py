"""What a model has heard is on record, and follows from a model to those that learn from it."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from speech_emotion_vit.errors import DatasetError, WeightsError
from speech_emotion_vit.training.data.corpora import LABELLED, Utterance
from speech_emotion_vit.training.data.protocols import Protocol, Split
from speech_emotion_vit.training.score.provenance import require_unknown, training_record
from speech_emotion_vit.weights.manifest import load_manifest
from speech_emotion_vit.weights.resolve import WEIGHTS_FOLDER
from training_runs import SMALL, fail, succeed

SPEAKERS = ("emodb/03", "emodb/08", "crema-d/1001", "crema-d/1003", "crema-d/1048")  # the last one tests officially
CLIPS = [
    Utterance(
        id=f"{speaker}_{take}", path=Path("absent.wav"), label="fear", speaker=speaker, corpus=speaker.split("/")[0]
    )
    for speaker in SPEAKERS
    for take in "ab"
]


def split(protocol: Protocol, test: tuple[str, ...], validation: tuple[str, ...] = ()) -> Split:
    about = {clip.id: clip for clip in CLIPS}
    sides = [tuple(about[name] for name in names) for names in (validation, test)]
    return Split(protocol=protocol, train=(), validation=sides[0], test=sides[1])


def run_folder(folder: Path, train: list[str], corpus: str = "crema-d", **more: object) -> str:
    """Write what a run leaves behind, and return its folder."""
    folder.mkdir()
    shutil.copyfile(WEIGHTS_FOLDER / "crema-d-paper.safetensors", folder / "model.safetensors")
    config = load_manifest().models["crema-d-paper"].config
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    record = {"corpus": corpus, "data": "mine", "recipe": {"start": ""}}
    (folder / "run.json").write_text(json.dumps(record | more))
    with open(folder / "split.csv", "w", newline="") as file:
        rows = [("train", name, name[:-2], f"content of {name}") for name in train]
        header, test = ("part", "utterance", "speaker", "content"), ("test", "crema-d/1003_a", "crema-d/1003", "")
        csv.writer(file, lineterminator="\n").writerows([header, *rows, test])
    return str(folder)


def test_the_manifest_says_it_of_every_bundled_model() -> None:
    manifest = load_manifest()
    for name, entry in manifest.models.items():
        assert "crema-d" in entry.heard, name
        several = {"base": {"crema-d", "emodb"}, "small": {"crema-d", "emodb"}, "research": set(LABELLED)}
        assert set(entry.heard) == several.get(name, {"crema-d", name.removesuffix("-paper")})
    assert len(manifest.get("emodb-paper").heard["emodb"]) == 10
    assert len(manifest.get("base").heard["crema-d"]) == 74
    assert "crema-d/1001" in training_record(None).speakers


def test_test_clips_of_a_heard_speaker_are_refused() -> None:
    unheard = {"crema-d-paper": ("emodb/03_a", "emodb/08_a"), "emodb-paper": ("crema-d/1003_a",)}
    for model, heard in (("crema-d-paper", "crema-d/1001_a"), ("emodb-paper", "emodb/03_a")):
        for protocol in ("speaker", "random", "paper"):
            refused = split(protocol, (heard, *unheard[model][:1]))
            with pytest.raises(DatasetError, match=rf"{protocol} split leaks: {model} .*{heard}.*: start"):
                require_unknown(model, refused, CLIPS, {})
        assert require_unknown("crema-d-paper", split("speaker", unheard["crema-d-paper"]), CLIPS, {}) == []
    complaint = "crema-d-paper was trained on the corpora of 1 test clips: crema-d/1003_a: start"
    with pytest.raises(DatasetError, match=complaint):
        require_unknown("crema-d-paper", split("corpus", ("crema-d/1003_a",)), [*CLIPS[:4], CLIPS[4], CLIPS[6]], {})
    (remark,) = require_unknown(
        "crema-d-paper", split("speaker", ("emodb/03_a",), ("crema-d/1001_a", "crema-d/1001_b")), CLIPS, {}
    )
    assert "crema-d-paper was trained on speakers of 2 validation clips" in remark


def test_a_run_is_read_from_its_folder_with_all_it_learnt_from(tmp_path: Path) -> None:
    first = run_folder(tmp_path / "first", ["emodb/03_a"])
    second = run_folder(tmp_path / "second", ["emodb/08_a"], recipe={"start": first})
    third = run_folder(tmp_path / "third", ["crema-d/1001_a"], corpus="emodb", recipe={"start": second})
    assert training_record(first).among(CLIPS, "random", {}) == {"emodb/03_a"}
    assert training_record(second).among(CLIPS, "random", {}) == {"emodb/03_a", "emodb/08_a"}
    assert training_record(third).among(CLIPS, "paper", {}) == {"emodb/03_a", "emodb/08_a", "crema-d/1001_a"}
    voices = {"emodb/03_a", "emodb/03_b", "emodb/08_a", "emodb/08_b"}
    assert training_record(second).among(CLIPS, "speaker", {}) == voices
    assert training_record(third).among(CLIPS, "speaker", {}) == voices | {"crema-d/1001_a", "crema-d/1001_b"}
    assert not training_record(third).unknown
    head = run_folder(tmp_path / "head", [], recipe={"start": "crema-d-paper"})  # a bundled model
    assert "crema-d/1001" in training_record(head).speakers
    role = tmp_path / "third" / "teacher"
    role.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(tmp_path / "third" / name, role / name)
    assert training_record(str(role)).clips == training_record(third).clips


def test_a_run_is_found_by_a_relative_path_and_by_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_folder(tmp_path / "run", ["emodb/03_a"])
    (tmp_path / "linked").mkdir()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "run" / name)
    (tmp_path / "run" / "teacher").mkdir()
    for place, model in (("run", "."), ("run", "model.safetensors"), ("run/teacher", ".."), ("linked", ".")):
        monkeypatch.chdir(tmp_path / place)
        assert set(training_record(model).clips) == {"emodb/03_a"}


def test_ones_own_clips_are_known_by_their_content(tmp_path: Path) -> None:
    contents = {clip.id: f"content of {clip.id}" for clip in CLIPS}
    heard = training_record(run_folder(tmp_path / "run", ["emodb/03_a"], corpus="folder"))
    assert heard.among(CLIPS, "random", contents) == {"emodb/03_a"}
    assert heard.among(CLIPS, "speaker", contents) == {"emodb/03_a", "emodb/03_b"}
    renamed = [dataclasses.replace(clip, id=f"copy/{clip.id}", speaker="?") for clip in CLIPS]  # another folder of them
    moved = {f"copy/{name}": content for name, content in contents.items()}
    assert heard.among(renamed, "random", moved) == {"copy/emodb/03_a"}
    others = {name: f"another {content}" for name, content in contents.items()}  # other clips of the same names
    assert heard.among(CLIPS, "random", others) == set()


def test_a_record_of_ones_own_clips_without_content_is_no_record(tmp_path: Path) -> None:
    model = run_folder(tmp_path / "run", ["emodb/03_a"], corpus="folder")
    table = (tmp_path / "run" / "split.csv").read_text()
    (tmp_path / "run" / "split.csv").write_text(table.replace("content\n", "other\n"))
    assert training_record(model).unknown == [model]


def test_what_is_on_no_record_is_said(tmp_path: Path) -> None:
    lonely = run_folder(tmp_path / "lonely", ["emodb/03_a"])
    (tmp_path / "lonely" / "split.csv").unlink()
    gone = run_folder(tmp_path / "gone", ["emodb/03_a"], recipe={"start": str(tmp_path / "nowhere")})
    odd = run_folder(tmp_path / "odd", ["emodb/03_a"], recipe=[])
    for model, unknown in ((lonely, lonely), (gone, str(tmp_path / "nowhere")), (odd, odd)):
        assert training_record(model).unknown == [unknown]
        (remark,) = require_unknown(model, split("speaker", ("crema-d/1001_a",)), CLIPS, {})
        assert f"what {unknown} was trained on is not on record" in remark
    loop = run_folder(tmp_path / "loop", ["emodb/03_a"], recipe={"start": str(tmp_path / "loop")})
    assert training_record(loop).among(CLIPS, "random", {}) == {"emodb/03_a"}
    with pytest.raises(WeightsError, match="no model, file or folder is called"):
        require_unknown(str(tmp_path / "nowhere"), split("speaker", ("crema-d/1001_a",)), CLIPS, {})


def test_a_model_that_has_heard_the_test_speakers_is_no_start(savee: Path, place: Path, tmp_path: Path) -> None:
    common = ("--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache")
    evaluated = succeed("evaluate", *common, "--model", "savee-paper", "--output", tmp_path / "scores")
    assert json.loads(evaluated.stdout.splitlines()[0])["heard"] == 56
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["heard"] == 56
    evaluated = succeed("evaluate", *common, "--model", "crema-d-paper")
    assert json.loads(evaluated.stdout.splitlines()[0])["heard"] == 0
    assert "LEAK" not in evaluated.stderr

    training = ("train", *common, "--fold", "0", "--output", tmp_path / "run", *SMALL)
    error = fail(*training, "--set", "start=savee-paper")
    assert "the speaker split leaks: savee-paper was trained on speakers of 14 test clips" in error
    assert not (tmp_path / "run" / "fold-0" / "run.json").exists()
