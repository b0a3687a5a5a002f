"""``--channel`` and ``--track``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from audio_files import encode
from helpers import CLIPS, tone
from speech_emotion_vit.cli import main

SIDES = [soundfile.read(clip, dtype="float32")[0][:24_000] for clip in CLIPS[:2]]


def predict(*arguments: object, stdin: bytes = b"", status: int = 0) -> Result:
    result = CliRunner().invoke(main, ["predict", "--backend", "onnx", *map(str, arguments)], input=stdin)
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def call(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "call.wav", np.stack(SIDES, axis=1), 16_000)
    return tmp_path / "call.wav"


def test_a_row_for_each_channel(call: Path) -> None:
    mono, none = call.with_name("mono.wav"), call.with_name("none.wav")
    soundfile.write(mono, SIDES[0], 16_000)
    split = predict(call, none, mono, "--channel", "split", status=1)
    rows = [json.loads(line) for line in split.stdout.splitlines()]
    assert [(row["file"], row["channel"]) for row in rows] == [(str(call), 0), (str(call), 1), (str(mono), 0)]
    assert rows[0]["probabilities"] == pytest.approx(rows[2]["probabilities"], abs=1e-3)
    assert rows[0]["label"] != rows[1]["label"]
    assert "none.wav: no such file" in split.stderr

    text = predict("-", "--channel", "1", "--format", "csv", stdin=call.read_bytes()).stdout
    (row,) = csv.DictReader(io.StringIO(text))
    assert list(row)[:3] == ["file", "channel", "label"]
    assert (row["channel"], row["label"]) == ("1", rows[1]["label"])

    table = predict("-", "--channel", "split", "--format", "table", stdin=call.read_bytes()).stdout
    assert [line.split()[:3] for line in table.splitlines() if line.startswith("-")] == [
        ["-", "channel", "0"],
        ["-", "channel", "1"],
    ]
    assert "channel" not in json.loads(predict(call).stdout)


def test_a_timeline_for_each_channel(call: Path) -> None:
    text = predict(call, "--channel", "split", "--timeline", "--format", "csv").stdout
    assert [row["channel"] for row in csv.DictReader(io.StringIO(text))] == ["0", "1"]
    text = predict(call, "--channel", "split", "--timeline", "--format", "json").stdout
    assert [row["channel"] for row in json.loads(text)] == [0, 1]
    refused = predict(call, "--channel", "split", "--timeline", "--format", "vtt", status=2)
    assert "subtitles are of one recording" in refused.stderr


def test_an_interrupted_job_goes_on_with_the_second_channel(call: Path, tmp_path: Path) -> None:
    output = tmp_path / "emotions.csv"
    arguments = [call, "--channel", "split", "--output", output]
    predict(*arguments)
    whole = output.read_text()
    output.write_text("".join(whole.splitlines(keepends=True)[:2]))
    predict(*arguments, "--resume")
    assert output.read_text() == whole


@pytest.mark.parametrize("channel", ["left", "-1", "1.5", "", "²", "9" * 5000])
def test_channels_that_are_none(call: Path, channel: str) -> None:
    refused = predict(call, f"--channel={channel}", status=2)
    assert "is neither mix, split nor a number from 0" in refused.stderr
    assert len(refused.stderr) < 500


def test_a_track_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "film.mka").write_bytes(encode("mka", [tone(440, 0.5, 48_000), tone(440, 1.5, 48_000)]))
    for options, seconds in (((), 0.5), (("--track", 0), 0.5), (("--track", 1), 1.5)):
        row = json.loads(predict(tmp_path / "film.mka", *options).stdout)
        assert row["duration"] == pytest.approx(seconds, abs=0.1)
    assert "track=2 is not there" in predict(tmp_path / "film.mka", "--track", 2, status=1).stderr
