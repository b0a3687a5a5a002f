from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import CLIPS, speech
from speech_emotion_vit import AudioError, ConfigError, EmotionClassifier, FrontendConfig, Segment, Timeline
from speech_emotion_vit.audio.reader import windows

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
LONG_MINUTES = float(os.environ.get("SPEECH_EMOTION_VIT_LONG_MINUTES", "12"))  # 180 is the claim; it takes minutes


def values(segments: list[Segment] | tuple[Segment, ...]) -> np.ndarray:
    return np.array([list(segment.probabilities.values()) for segment in segments])


def assert_predicts(classifier: EmotionClassifier, timeline: Timeline, audio: np.ndarray) -> None:
    """Every segment is what `predict_batch` says of its samples."""
    cuts = [audio[round(s.start * RATE) : round(s.end * RATE)] for s in timeline]
    expected = classifier.predict_batch(cuts, sampling_rate=RATE)
    np.testing.assert_allclose(
        values(timeline.segments), [list(p.probabilities.values()) for p in expected], atol=1e-5, rtol=0
    )
    assert [s.speech for s in timeline] == pytest.approx([p.speech for p in expected])


@given(
    samples=st.integers(1, 9 * RATE),
    # Multiples of the STFT's hop of 64 samples share frames, the others do not.
    hop=st.one_of(st.integers(30, 2000).map(lambda n: 64 * n), st.integers(2000, 100_000)),
    window=st.one_of(st.none(), st.integers(512, 64_000)),
    batch_size=st.integers(1, 20),
    gap=st.tuples(st.integers(0, 9 * RATE), st.integers(0, 9 * RATE)),
)
@settings(max_examples=40, deadline=None)
def test_a_segment_is_the_prediction_of_its_window(
    classifier: EmotionClassifier, samples: int, hop: int, window: int | None, batch_size: int, gap: tuple[int, int]
) -> None:
    audio = speech(9.0)[:samples]
    audio[min(gap) : max(gap)] = 0
    timeline = classifier.timeline(
        audio,
        sampling_rate=RATE,
        hop=hop / RATE,
        window=None if window is None else window / RATE,
        batch_size=batch_size,
    )
    cut = list(windows([audio], window or 64_000, hop))
    assert len(timeline) == len(cut)
    assert [round((s.end - s.start) * RATE) for s in timeline] == [len(piece) for piece in cut]
    assert_predicts(classifier, timeline, audio)


def test_overlapping_windows_share_their_frames(
    hearing_all: EmotionClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, audio = hearing_all, speech(20.0)
    expected = classifier.timeline(audio, sampling_rate=RATE, hop=0.5, batch_size=1)  # nothing to share with
    computed = []
    compute = classifier.frontend.mel_power

    def counted(waveform):
        power = compute(waveform)
        computed.append(power.shape[0] * power.shape[1])
        return power

    monkeypatch.setattr(classifier.frontend, "mel_power", counted)
    timeline = classifier.timeline(audio, sampling_rate=RATE, hop=0.5, batch_size=33)
    assert len(timeline) == 33
    assert 5000 < sum(computed) < 0.3 * 33 * 1001  # 5001 frames in 20 s, and 22 at the edges of every window
    np.testing.assert_allclose(values(timeline.segments), values(expected.segments), atol=1e-5, rtol=0)


def test_the_last_window_is_aligned_to_the_end(classifier: EmotionClassifier) -> None:
    spans = [(s.start, s.end) for s in classifier.timeline(speech(10.3), sampling_rate=RATE, hop=3.0)]
    assert spans == [(0, 4), (3, 7), (6, 10), (pytest.approx(6.3), pytest.approx(10.3))]
    spans = [(s.start, s.end) for s in classifier.timeline(speech(9.0), sampling_rate=RATE, hop=7.0)]
    assert spans == [(0, 4), (5, 9)]


def test_a_recording_shorter_than_a_window_is_one_segment(classifier: EmotionClassifier) -> None:
    timeline = classifier.timeline(CLIPS[0], hop=0.1)
    (segment,) = timeline
    assert (segment.start, segment.end) == (0, pytest.approx(soundfile.info(CLIPS[0]).duration))
    prediction = classifier.predict(CLIPS[0])
    assert segment.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
    assert (timeline.file, timeline.model) == (str(CLIPS[0]), classifier.name)
    assert (timeline.duration, timeline.warnings) == (prediction.duration, prediction.warnings)


def test_smoothing_is_an_exponential_average_through_speech_alone(classifier: EmotionClassifier) -> None:
    clip = soundfile.read(CLIPS[3], dtype="float32")[0][RATE // 4 : 9 * RATE // 4]  # two seconds of speech
    audio = np.concatenate((clip, np.zeros(RATE, np.float32), clip, clip[:RATE]))
    options = {"sampling_rate": RATE, "hop": 1.0, "window": 1.0}
    raw = classifier.timeline(audio, **options)
    smooth = classifier.timeline(audio, smoothing=2.0, **options)
    assert [s.label is None for s in smooth] == [False, False, True, False, False, False]
    expected = values(raw.segments)
    for now, before in ((1, 0), (3, 1), (4, 3), (5, 4)):  # not through the silence at 2
        keep = np.exp(-(now - before) / 2.0)
        expected[now] = keep * expected[before] + (1 - keep) * expected[now]
    np.testing.assert_allclose(values(smooth.segments), expected, atol=1e-5, rtol=0)


def test_a_file_that_ends_early_keeps_what_came_before(classifier: EmotionClassifier, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    soundfile.write(whole, speech(12.0), RATE)
    cut.write_bytes(whole.read_bytes()[: 44 + 2 * 7 * RATE])
    timeline = classifier.timeline(cut, hop=2.0)
    assert timeline.warnings[0] == "truncated: 7.00 of 12.00 s could be read"
    assert [(s.start, s.end) for s in timeline] == [(0, 4), (2, 6), (3, 7)]
    expected = classifier.timeline(whole, hop=2.0)
    np.testing.assert_allclose(values(timeline.segments[:2]), values(expected.segments[:2]), atol=1e-5)
    assert "warnings: truncated" in repr(timeline)


def test_damage_in_the_middle_keeps_what_came_before(classifier: EmotionClassifier, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.flac", tmp_path / "damaged.flac"
    soundfile.write(whole, speech(40.0), RATE)
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    damaged.write_bytes(bytes(data[:middle]))
    timeline = classifier.timeline(damaged, hop=2.0)
    assert timeline.warnings[0].startswith(("damaged after", "truncated:"))
    assert 10 < timeline.duration < 30
    expected = classifier.timeline(whole, hop=2.0)
    count = len(timeline) - 1  # the last one ends where the file does
    np.testing.assert_allclose(values(timeline.segments[:count]), values(expected.segments[:count]), atol=1e-5)


def test_a_value_that_is_no_audio_keeps_what_came_before(classifier: EmotionClassifier) -> None:
    audio = 0.9 * speech(40.0)  # not clipped
    audio[35 * RATE] = np.nan
    timeline = classifier.timeline(audio, sampling_rate=RATE, hop=4.0)
    (warning,) = timeline.warnings
    assert warning == f"sample {35 * RATE} is NaN: repair the recording"
    assert timeline.segments[-1].end == 35  # and not where the block before it ended
    assert timeline.duration == 35
    assert values(timeline.segments) == pytest.approx(
        values(classifier.timeline(audio[: 35 * RATE], sampling_rate=RATE, hop=4.0).segments), abs=1e-6
    )
    with pytest.raises(AudioError, match="sample 0 is NaN"):
        classifier.timeline(np.where(np.arange(RATE) == 0, np.nan, 0.1), sampling_rate=RATE)


def test_progress_is_told_in_seconds(classifier: EmotionClassifier) -> None:
    told: list[float] = []
    classifier.timeline(speech(40.0), sampling_rate=RATE, hop=10.0, progress=told.append)
    assert len(told) > 1
    assert told == sorted(told)
    assert told[-1] == 40.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop": 0}, "hop must be at least one sample, 6.25e-05 s, not 0"),
        ({"hop": -1.0}, "hop must be from 0 to 1,000,000,000 seconds, not -1.0"),
        ({"hop": float("nan")}, "hop must be from 0 to 1,000,000,000 seconds, not nan"),
        ({"hop": float("inf")}, "hop must be from 0"),
        ({"hop": 1e308}, "hop must be from 0 to 1,000,000,000 seconds, not 1e+308"),
        ({"hop": "1"}, "hop must be a number of seconds, not '1'"),
        ({"hop": True}, "hop must be a number of seconds, not True"),
        ({"hop": 1e-6}, "hop must be at least one sample"),
        ({"window": 0.01}, "window of 0.01 s is shorter than one frame of 0.032 s"),
        ({"window": 4.5}, "window of 4.5 s is longer than the 4 s the model sees"),
        ({"window": float("nan")}, "window must be from 0"),
        ({"window": 10**400}, "window must be from 0 to 1,000,000,000 seconds, not 100000"),
        ({"smoothing": -0.5}, "smoothing must be from 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    classifier: EmotionClassifier, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        classifier.timeline(CLIPS[0], **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_front_end_whose_window_is_shorter_than_a_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match="shorter than one frame of 2048 samples"):
        FrontendConfig(
            window_seconds=0.1, window_hop_seconds=0.1, n_fft=2048, win_length=2048, hop_length=8, columns=32
        )


MADE = Timeline(
    segments=(
        Segment(0.0, 4.0, {"anger": 0.9, "joy <b>": 0.1}, 3.5),
        Segment(1.0, 5.0, {"anger": 0.7, "joy <b>": 0.3}, 4.0),
        Segment(2.0, 6.0, {"anger": 0.2, "joy <b>": 0.8}, 1.25),
        Segment(3.0, 7.0, {"anger": 0.0, "joy <b>": 0.0}, 0.0),
    ),
    file="a,b.wav",
    duration=7.0,
    model="m@1",
    warnings=("truncated",),
)


def test_stretches_do_not_overlap_and_join_neighbours() -> None:
    stretches = [(s.start, s.end, s.label, s.score) for s in MADE.stretches()]
    # Middles at 2, 3, 4 and 5 s, so the borders lie at 2.5, 3.5 and 4.5 s.
    assert stretches == [(0, 3.5, "anger", pytest.approx(0.8)), (3.5, 4.5, "joy <b>", 0.8), (4.5, 7, None, 0.0)]
    tiles = Timeline(tuple(Segment(0.1 * i, 0.1 * (i + 1), {"a": 1.0}, 0.1) for i in range(30)), "f", 3.0, "m@1")
    assert len(tiles.stretches()) == 1
    apart = Timeline((Segment(0, 1, {"a": 1.0}, 1.0), Segment(5, 6, {"a": 1.0}, 1.0)), "f", 6.0, "m@1")
    assert [(s.start, s.end) for s in apart.stretches()] == [(0, 1), (5, 6)]


def test_subtitles() -> None:
    assert MADE.to_webvtt() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:03.500\nanger 80%\n\n00:00:03.500 --> 00:00:04.500\njoy &lt;b&gt; 80%\n"
    )
    late = Timeline((Segment(3661.9996, 3662.5, {"a": 1.0}, 0.5),), "f", 3662.5, "m@1")
    assert "01:01:02.000 --> 01:01:02.500\n" in late.to_webvtt()


def test_json_and_csv_say_the_same() -> None:
    parsed = json.loads(MADE.to_json())
    assert parsed == MADE.to_dict()
    assert (parsed["file"], parsed["duration"], parsed["warnings"]) == ("a,b.wav", 7.0, ["truncated"])
    last = parsed["segments"][3]
    assert (last["label"], last["score"], last["speech"]) == (None, 0.0, 0.0)
    rows = list(csv.DictReader(io.StringIO(MADE.to_csv())))
    assert len(rows) == 4
    assert rows[2] == {
        "file": "a,b.wav",
        "start": "2.0",
        "end": "6.0",
        "label": "joy <b>",
        "score": "0.8",
        "anger": "0.2",
        "joy <b>": "0.8",
        "speech": "1.25",
    }
    assert list(rows[3].values()) == ["a,b.wav", "3.0", "7.0", "", "", "", "", "0.0"]  # no answer, so empty cells


def test_a_frame_in_the_segmented_layout() -> None:
    import pandas as pd

    frame = MADE.to_frame()
    assert frame.index.names == ["file", "start", "end"]
    assert list(frame.columns) == ["label", "score", "anger", "joy <b>", "speech"]
    assert frame.index[1] == ("a,b.wav", pd.Timedelta(seconds=1), pd.Timedelta(seconds=5))
    assert frame.loc[("a,b.wav", pd.Timedelta("2s"), pd.Timedelta("6s")), "label"] == "joy <b>"
    assert frame["speech"].tolist() == [3.5, 4.0, 1.25, 0.0]
    assert frame.iloc[3, :4].isna().all()  # no answer


def test_a_plot_shows_every_label_and_leaves_out_where_nobody_speaks() -> None:
    lines, strip = MADE.plot().axes
    assert [line.get_label() for line in lines.get_lines()] == ["anger", "joy <b>"]
    (anger, _) = lines.get_lines()
    np.testing.assert_allclose(anger.get_xdata(), [2, 3, 4, 5])
    np.testing.assert_allclose(anger.get_ydata(), [0.9, 0.7, 0.2, np.nan])
    assert len(strip.patches) == 3


def test_dollars_in_names_and_labels_are_drawn_as_they_are() -> None:
    labels = ("$x_$", "a $ b", "$\\frac$")
    timeline = Timeline((Segment(0.0, 4.0, dict.fromkeys(labels, 1 / 3), 4.0),), "$_$.wav", 4.0, "my$^$model@1")
    figure = timeline.plot()
    figure.savefig(io.BytesIO(), format="png")
    assert tuple(text.get_text() for text in figure.axes[0].get_legend().get_texts()) == (*labels, "nobody speaks")
    assert figure.get_suptitle() == "$_$.wav, my$^$model"


def test_what_it_looks_like() -> None:
    assert repr(MADE) == (
        "<Timeline 4 segments: anger 0.0-3.5, joy <b> 3.5-4.5, nobody 4.5-7.0 (7.00 s, m@1, warnings: truncated)>"
    )
    assert [repr(segment) for segment in MADE.segments[2:]] == [
        "<Segment 2.00-6.00 s joy <b> 0.80>",
        "<Segment 3.00-7.00 s nobody speaks>",
    ]


def test_missing_extras_are_named() -> None:
    code = (
        "import sys; sys.modules['pandas'] = sys.modules['matplotlib'] = None\n"
        "from speech_emotion_vit import ConfigError, Segment, Timeline\n"
        "timeline = Timeline((Segment(0, 1, {'a': 1.0}, 1.0),), 'f', 1.0, 'm@1')\n"
        "for make, extra in ((timeline.to_frame, 'frame'), (timeline.plot, 'plot')):\n"
        "    try:\n        make()\n"
        "    except ConfigError as error:\n        assert f'speech-emotion-vit[{extra}]' in str(error), error\n"
        "    else:\n        raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """The claim is 3 hours: ``SPEECH_EMOTION_VIT_LONG_MINUTES=180 pytest tests/test_windows.py -k memory``."""
    recording, piece = tmp_path / "long.wav", speech(60.0)
    with soundfile.SoundFile(recording, "w", RATE, 1) as file:
        for _ in range(round(LONG_MINUTES)):
            file.write(piece)
    code = (
        "import resource, sys, torch; torch.set_num_threads(1)\n"
        "from speech_emotion_vit import EmotionClassifier\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "classifier = EmotionClassifier(device='cpu')\n"
        "classifier.predict(sys.argv[2])\n"
        "before = peak()\n"
        "timeline = classifier.timeline(sys.argv[1], hop=4.0)\n"
        "print(len(timeline), timeline.duration, peak() - before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(recording), str(CLIPS[0])], check=True, capture_output=True, text=True
    )
    count, duration, added = map(float, result.stdout.split())
    assert (count, duration) == (15 * round(LONG_MINUTES), 60 * round(LONG_MINUTES))
    assert added < 100, f"{added:.0f} MB"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "speech_emotion_vit", "predict", *map(str, arguments)], capture_output=True, text=True
    )


def test_the_command_line_writes_a_row_per_segment(classifier: EmotionClassifier, tmp_path: Path) -> None:
    path = tmp_path / "call.flac"
    soundfile.write(path, np.concatenate((speech(5.0), np.zeros(5 * RATE))), RATE)
    expected = classifier.timeline(path, hop=3.0)
    result = command(path, tmp_path / "gone.wav", "--timeline", "--hop", 3, "--model", "crema-d-paper")
    assert result.returncode == 1
    failed, closing = result.stderr.splitlines()
    assert failed == f"Error: {tmp_path / 'gone.wav'}: no such file: check the path"
    assert closing.endswith("1 answered, 1 failed, 0 without speech")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["start"], row["end"], row["label"] is None) for row in rows] == [
        (0, 4, False),
        (3, 7, False),
        (6, 10, True),
    ]
    assert all(row["file"] == str(path) and row["model"] == classifier.name for row in rows)
    assert rows[1]["probabilities"] == pytest.approx(expected.segments[1].probabilities, abs=1e-5)

    result = command(path, "--timeline", "--hop", 3, "--format", "csv", "--model", "crema-d-paper")
    header, *lines = result.stdout.splitlines()
    assert result.stdout.splitlines()[0] == expected.to_csv().splitlines()[0]
    assert len(lines) == 3
    assert header.startswith("file,start,end,label,score,")

    result = command(path, "--timeline", "--hop", 3, "--format", "table", "--model", "crema-d-paper")
    lines = result.stdout.splitlines()
    assert str(path).endswith(lines[0].removeprefix("..."))
    assert lines[1].split() == ["start", "end", "emotion", "score", "next"]
    assert lines[3].split()[:3] == ["0:03.0", "0:07.0", expected.segments[1].label]
    assert lines[4].split() == ["0:06.0", "0:10.0", "(nobody)"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [(["--hop", "1"], 2, "--hop goes with --timeline"), (["--timeline", "--hop", "0"], 1, "hop must be at least")],
)
def test_command_line_errors_are_one_line(arguments: list[str], status: int, message: str) -> None:
    result = command(CLIPS[0], *arguments)
    assert result.returncode == status
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
