"""Segments of others: read as their packages write them, and answered as `predict` answers their samples."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from faster_whisper.transcribe import Segment as Transcribed
from pyannote.core import Annotation
from pyannote.core import Segment as Span

from helpers import CLIPS, ROOT
from speech_emotion_vit import AudioError, ConfigError, EmotionClassifier
from speech_emotion_vit.cli import main
from speech_emotion_vit.segments import Turn, read_segments

RATE = 16_000
GAP = 0.5  # seconds of nothing between the clips of the call
WORDS = ["It's eleven o'clock.", "=1+1 & so on", "Don't forget\na jacket.", "I think so.", "That's it.", "Maybe."]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Turn]]:
    """Six clips joined into a call of two speakers, and who says what when."""
    audio, turns, position = [], [], 0
    for number, clip in enumerate(CLIPS):
        samples = soundfile.read(clip, dtype="float32")[0]
        start, end = position / RATE, (position + len(samples)) / RATE
        turns.append(Turn(round(start, 3), round(end, 3), f"SPEAKER_0{number % 2}", WORDS[number]))
        audio += [samples, np.zeros(round(GAP * RATE), np.float32)]
        position += len(samples) + round(GAP * RATE)
    path = tmp_path_factory.mktemp("call") / "call.flac"
    soundfile.write(path, np.concatenate(audio), RATE)
    return path, turns


@pytest.fixture(scope="module")
def light() -> EmotionClassifier:
    return EmotionClassifier(backend="onnx")


def clock(seconds: float, mark: str, *, hours: bool) -> str:
    """As Whisper's ``format_timestamp`` writes it."""
    milliseconds = round(seconds * 1000)
    whole = f"{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}{mark}{milliseconds % 1000:03}"
    return f"{milliseconds // 3_600_000:02}:{whole}" if hours or milliseconds >= 3_600_000 else whole


def whisper_srt(turns: list[Turn]) -> str:
    lines = [
        f"{n}\n{clock(t.start, ',', hours=True)} --> {clock(t.end, ',', hours=True)}\n{(t.text or '').strip()}\n"
        for n, t in enumerate(turns, 1)
    ]
    return "\n".join(lines) + "\n"


def whisper_vtt(turns: list[Turn]) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{clock(t.start, '.', hours=False)} --> {clock(t.end, '.', hours=False)}\n{t.text}\n\n" for t in turns
    )


def whisper_tsv(turns: list[Turn]) -> str:
    rows = [f"{round(1000 * t.start)}\t{round(1000 * t.end)}\t{(t.text or '').strip()}" for t in turns]
    return "\n".join(["start\tend\ttext", *[row.replace("\n", " ") for row in rows]]) + "\n"


def annotation(turns: list[Turn], uri: str = "call") -> Annotation:
    made = Annotation(uri=uri)
    for track, turn in enumerate(turns):
        made[Span(turn.start, turn.end), track] = turn.speaker
    return made


def transcribed(turns: list[Turn]) -> Iterator[Transcribed]:
    """Segments as faster-whisper yields them."""
    for number, turn in enumerate(turns):
        known = {"id": number, "start": turn.start, "end": turn.end, "text": f" {turn.text}"}
        yield Transcribed(**{each.name: known.get(each.name) for each in dataclasses.fields(Transcribed)})


def test_what_whisper_and_pyannote_write_is_read(call: tuple[Path, list[Turn]], tmp_path: Path) -> None:
    path, turns = call
    spoken = [(t.start, t.end, " ".join((t.text or "").split())) for t in turns]
    for suffix, text in ((".srt", whisper_srt(turns)), (".vtt", whisper_vtt(turns)), (".tsv", whisper_tsv(turns))):
        for data in (text, "\ufeff" + text, text.replace("\n", "\r\n")):
            (tmp_path / f"call{suffix}").write_bytes(data.encode())
            found = read_segments(tmp_path / f"call{suffix}", str(path))
            assert [(*t[:2], t.text) for t in found] == [(pytest.approx(a), pytest.approx(b), w) for a, b, w in spoken]
            assert {t.speaker for t in found} == {None}
    with (tmp_path / "call.rttm").open("w") as file:
        annotation(turns).write_rttm(file)
    found = read_segments(tmp_path / "call.rttm", str(path))
    assert [(t.start, t.end, t.speaker) for t in found] == [
        (pytest.approx(t.start, abs=2e-3), pytest.approx(t.end, abs=2e-3), t.speaker) for t in turns
    ]
    assert [t[:3] for t in read_segments(annotation(turns), "x")] == [t[:3] for t in turns]
    assert [(t.start, t.end, t.text) for t in read_segments(transcribed(turns), "x")] == [
        (t.start, t.end, t.text) for t in turns
    ]
    (tmp_path / "call.json").write_text(
        json.dumps({"text": "", "segments": [t._asdict() for t in turns], "language": "en"})
    )
    assert read_segments(tmp_path / "call.json", "x") == turns
    assert read_segments({"segments": [t._asdict() for t in turns]}, "x") == turns
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(
            [("Speaker", "Start", "End", "Text"), *((t[2], t[0], t[1], t[3]) for t in turns)]
        )
    assert read_segments(tmp_path / "own.csv", "x") == turns


def test_speakers_and_marks_of_subtitles(tmp_path: Path) -> None:
    path = tmp_path / "a.vtt"
    path.write_text(
        "WEBVTT - a title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE a --\n\n"
        "first\n00:00.000 --> 00:02.500 align:start position:0%\n"
        "<v.loud Ann &amp; Bob>Hello <00:01.000><c>there</c> &lt;3\n\n"
        "01:00:02.000 --> 01:00:03.000\n[SPEAKER_01]: so?\n\n00:03.000 --> 00:04.000\n"
    )
    assert read_segments(path, "x") == [
        Turn(0.0, 2.5, "Ann & Bob", "Hello there <3"),
        Turn(3602.0, 3603.0, "SPEAKER_01", "so?"),
        Turn(3.0, 4.0),
    ]
    (tmp_path / "two.rttm").write_text(
        "SPKR-INFO a 1 <NA> <NA> <NA> unknown s <NA> <NA>\n"
        "SPEAKER a 1 0.5 1.5 <NA> <NA> x <NA> <NA>\nSPEAKER b 1 1 2 <NA> <NA> y <NA> <NA>\n"
    )
    assert read_segments(tmp_path / "two.rttm", "folder/b.wav") == [Turn(1.0, 3.0, "y")]
    with pytest.raises(ConfigError, match="of 2 recordings, a, b: none is called 'c'"):
        read_segments(tmp_path / "two.rttm", "c.wav")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.rttm", "SPEAKER a 1 0.5\n", "line 1: 'SPEAKER a 1 0.5' has 4 fields"),
        ("a.rttm", "SPEAKER a 1 x 1 <NA> <NA> s <NA> <NA>\n", "line 1: 'x' is no number of seconds"),
        ("a.srt", "1\n00:00:02,000 --> 00:00:01,000\nx\n", "line 2: ends at 1 s, before it starts at 2 s"),
        ("a.vtt", "WEBVTT\n\n00:00:02,000 -->\nx\n", "line 3: '00:00:02,000 -->' is no pair of times"),
        ("a.csv", "start,text\n1,x\n", "its columns are start, text: start and end are needed"),
        ("a.csv", "1,2\nnan,3\n", "line 2: is from nan to 3 s"),
        ("a.json", '{"a": 1}', "has no list of segments"),
        ("a.json", '{"segments": [{"start": 1}]}', "segment 1 has start 1 and end None"),
        ("a.srt", "", "there is no segment in it"),
        ("a.doc", "words", "is no file of segments: its name must end in .rttm, .srt"),
        ("a.json", "[" * 100_000, "correct the file"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read_segments(tmp_path / name, "x.wav")
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([(0, 1), (2, 1)], "number 2 ends at 1 s, before it starts at 2 s"),
        ([(0,)], "number 1 is (0,), not (start, end)"),
        ([("0", "1")], "both must be numbers of seconds"),
        ([(-1, 1)], "is from -1 to 1 s"),
        ([], "there is no segment in it"),
        (3, "cannot take int: pass (start, end) pairs"),
        ({"words": 1}, "must have 'segments', not words"),
    ],
)
def test_what_is_wrong_in_memory_is_said_with_its_number(source: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_segments(source, "x")


def test_every_segment_gets_the_answer_of_its_samples(light: EmotionClassifier, call: tuple[Path, list[Turn]]) -> None:
    path, turns = call
    audio = soundfile.read(path, dtype="float32")[0]
    duration = len(audio) / RATE
    given = [
        *turns,
        Turn(1.0, 11.0, "both"),  # over others, and longer than a window
        Turn(0.0, duration, None, "everything"),
        Turn(3.0, 3.0),
        Turn(5.0, 5.05),
        Turn(duration - 2.0, duration + 30.0, "late"),
        Turn(duration + 1.0, duration + 2.0),
        turns[0],
    ]
    told: list[float] = []
    timeline = light.timeline(path, segments=given[::-1], progress=told.append)
    assert told
    assert timeline.given
    assert timeline.duration == pytest.approx(duration)
    answers = timeline.segments[::-1]
    assert [(s.start, s.end, s.speaker, s.text) for s in answers] == given
    for segment in answers:
        samples = audio[round(segment.start * RATE) : round(segment.end * RATE)]
        if len(samples):
            expected = light.predict(samples, sampling_rate=RATE)
            assert segment.label == expected.label
            assert segment.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
            assert segment.speech == pytest.approx(expected.speech)
        else:
            assert (segment.label, segment.speech) == (None, 0.0)
    assert timeline.warnings[:4] == (
        f"segments that begin after the end of the recording: 1 of {len(given)}",
        f"segments that end after the end of the recording: 1 of {len(given)}",
        f"segments that are empty: 1 of {len(given)}",
        f"segments that are shorter than 0.3 s: 1 of {len(given)}",
    )


def test_speaker_and_text_are_in_every_form(light: EmotionClassifier, call: tuple[Path, list[Turn]]) -> None:
    path, turns = call
    timeline = light.timeline(path, segments=turns)
    first, second = timeline.speakers()
    assert (first.speaker, first.segments, second.segments) == ("SPEAKER_00", 3, 3)
    weights = np.array([s.speech for s in timeline.segments[::2]])
    anger = np.array([s.probabilities["anger"] for s in timeline.segments[::2]])
    assert first.probabilities["anger"] == pytest.approx((weights * anger).sum() / weights.sum())
    assert first.speech == pytest.approx(weights.sum())
    assert sum(first.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert json.loads(timeline.to_json())["speakers"][1]["speaker"] == "SPEAKER_01"
    assert json.loads(timeline.to_json())["segments"][1]["text"] == turns[1].text
    rows = list(csv.DictReader(io.StringIO(timeline.to_csv())))
    assert [row["speaker"] for row in rows] == [t.speaker for t in turns]
    assert rows[1]["text"] == f"'{turns[1].text}"  # no formula
    frame = timeline.to_frame()
    assert list(frame.columns[:3]) == ["speaker", "text", "label"]
    cues = timeline.to_webvtt().split("\n\n")[1:]
    assert len(cues) == 6
    label, score = timeline.segments[1].label, timeline.segments[1].score
    assert cues[1].split("\n")[1] == f"<v SPEAKER_01>[{label} {score:.0%}] =1+1 &amp; so on"
    assert len(timeline.stretches()) == 6


def test_what_was_written_is_read_again(
    light: EmotionClassifier, call: tuple[Path, list[Turn]], tmp_path: Path
) -> None:
    path, turns = call
    timeline = light.timeline(path, segments=turns[2:])
    (tmp_path / "a.csv").write_text(timeline.to_csv())
    (tmp_path / "a.vtt").write_text(timeline.to_webvtt())
    (tmp_path / "a.json").write_text(timeline.to_json())
    for suffix in ("csv", "vtt", "json"):
        found = read_segments(tmp_path / f"a.{suffix}", str(path))
        assert [t.speaker for t in found] == [t.speaker for t in turns[2:]]
        np.testing.assert_allclose([t[:2] for t in found], [t[:2] for t in turns[2:]], atol=1e-3)


def test_options_of_windows_do_not_go_with_segments_and_no_audio_is_an_error(light: EmotionClassifier) -> None:
    with pytest.raises(ConfigError, match="hop, window and smoothing are for windows"):
        light.timeline(CLIPS[0], segments=[(0, 1)], hop=0.5)
    with pytest.raises(AudioError):
        light.timeline(b"no audio", segments=[(0, 1)])


def test_the_command_line(call: tuple[Path, list[Turn]], tmp_path: Path) -> None:
    path, turns = call
    given = tmp_path / "call.vtt"
    given.write_text(whisper_vtt(turns))
    (tmp_path / "call.rttm").write_text(
        "".join(f"SPEAKER call 1 {t.start} {t.end - t.start} <NA> <NA> {t.speaker} <NA> <NA>\n" for t in turns)
    )

    def predict(*arguments: object, status: int = 0) -> tuple[str, str]:
        result = CliRunner().invoke(main, ["predict", "--backend", "onnx", *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result.stdout, result.stderr

    table, said = predict(path, "--segments", tmp_path / "call.rttm", "--format", "table")
    lines = table.splitlines()
    assert said == ""
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["start", "end", "speaker", "emotion", "score", "text"]
    assert [line.split()[2] for line in lines[2:8]] == [t.speaker for t in turns]
    assert [line.split()[:3:2] for line in lines[10:]] == [["3", "SPEAKER_00"], ["3", "SPEAKER_01"]]
    rows, _ = predict(path, "--segments", given)
    assert json.loads(rows.splitlines()[0])["text"] == turns[0].text
    predict(path, "--segments", given, "--output", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("file,start,end,speaker,text,label,score,")
    assert "is read too" in predict(path, "--segments", given, "--output", given, status=1)[1]
    assert "is for windows" in predict(path, "--segments", given, "--hop", 1, status=2)[1]
    assert "pass a folder with a file for each" in predict(path, path, "--segments", given, status=2)[1]

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "call.vtt").write_text(whisper_vtt(turns[:2]))
    rows, said = predict(path, CLIPS[0], "--segments", folder, status=1)
    assert len(rows.splitlines()) == 2
    assert "no file with segments for anger.flac: one is needed, such as anger.rttm" in said


def test_the_example(call: tuple[Path, list[Turn]], tmp_path: Path) -> None:
    path, turns = call
    core = annotation(turns)
    with (tmp_path / "call.rttm").open("w") as file:
        core.write_rttm(file)
    command = [sys.executable, str(ROOT / "examples" / "call.py"), str(path), str(tmp_path / "call.rttm")]
    done = subprocess.run([*command, "--subtitles", str(tmp_path / "s.vtt")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *lines, first, second = done.stdout.splitlines()
    assert [line.split()[2] for line in lines] == [turn.speaker for turn in turns]
    assert (first[:10], second[:10]) == ("SPEAKER_00", "SPEAKER_01")
    assert (tmp_path / "s.vtt").read_text().count("<v SPEAKER_0") == 6


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("call.csv", "start;end;speaker\n0,5;2,0;Jürgen\n"),
        ("call.srt", "1\n00:00:00,500 --> 00:00:02,000\n[Jürgen]: Ja.\n"),
        ("call.vtt", "WEBVTT\n\n00:00.500 --> 00:02.000\n<v Jürgen>Ja.\n"),
        ("call.rttm", "SPEAKER call 1 0.5 1.5 <NA> <NA> Jürgen <NA> <NA>\n"),
    ],
)
def test_other_encodings_are_read_or_told_how_to_become_utf_8(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text(text, encoding=encoding)
        (turn,) = read_segments(path, "call.wav")
        assert turn[:3] == (0.5, 2.0, "Jürgen")
    for encoding, remedy in (("cp1252", r"in line \d: save .* iconv -f WINDOWS-1252"), ("utf-16-le", "save it as")):
        path.write_text(text, encoding=encoding)
        with pytest.raises(ConfigError, match=rf"{name}: is not UTF-8.*{remedy}"):
            read_segments(path, "call.wav")
    path.write_text(text.replace("ü", "ue"), encoding="utf-16-be")
    with pytest.raises(ConfigError, match="NUL characters: save it as UTF-8, for example with iconv -f UTF-16BE"):
        read_segments(path, "call.wav")
