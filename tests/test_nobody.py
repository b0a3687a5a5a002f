"""No emotion is made up: what nobody speaks in gets none, and changes none."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import soundfile

from helpers import CLIPS, nothings, speech
from speech_emotion_vit import ConfigError, EmotionClassifier, Prediction, Segment

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
AUDIO = {path.stem: soundfile.read(path, dtype="float32")[0] for path in CLIPS}
NOTHINGS = nothings(3.0)


def room(seconds: float) -> np.ndarray:
    """Noise at -60 dB below full scale."""
    return np.random.default_rng(0).normal(0, 1e-3, round(seconds * RATE)).astype(np.float32)


def zeros(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def predict(classifier: EmotionClassifier, *parts: np.ndarray) -> Prediction:
    return classifier.predict(np.concatenate(parts), sampling_rate=RATE)


def assert_close(one: Prediction, other: Prediction, tolerance: float) -> None:
    assert one.label == other.label
    assert one.probabilities == pytest.approx(other.probabilities, abs=tolerance)
    assert one.speech == pytest.approx(other.speech, abs=0.3)


@pytest.fixture(scope="module", params=["torch", "onnx"])
def listener(request: pytest.FixtureRequest) -> EmotionClassifier:
    return EmotionClassifier("crema-d-paper", backend=request.param)


def test_what_nobody_speaks_in_gets_no_label(listener: EmotionClassifier) -> None:
    for prediction in listener.predict_batch(NOTHINGS.values(), sampling_rate=RATE):
        assert prediction.label is None
        assert (prediction.score, prediction.speech, prediction.top(3)) == (0.0, 0.0, [])
        assert set(prediction.probabilities) == set(listener.labels)
        assert set(prediction.probabilities.values()) == {0.0}
        assert "no speech" in prediction.warnings
        assert "nobody speaks" in repr(prediction)
        assert json.loads(json.dumps(prediction.to_dict()))["label"] is None


@pytest.mark.parametrize("name", AUDIO)
def test_noise_behind_before_and_between_changes_nothing(classifier: EmotionClassifier, name: str) -> None:
    audio = AUDIO[name][: len(AUDIO[name]) // 512 * 512]
    alone = predict(classifier, audio)
    for parts in ((audio, room(20)), (room(6.4), audio, room(6.4)), (zeros(1.536), audio)):
        assert_close(predict(classifier, *parts), alone, 0.5)
    twice = predict(classifier, audio, zeros(1.024), audio)
    assert_close(predict(classifier, audio, room(10.24), audio), twice, 0.5)


def test_the_share_left_out_is_said(classifier: EmotionClassifier) -> None:
    prediction = predict(classifier, AUDIO["happiness"], room(6.0))
    (warning,) = prediction.warnings
    share = int(warning.removesuffix("% left out, where nobody speaks"))
    assert share == pytest.approx(100 * 6 / prediction.duration, abs=6)
    assert 1.5 < prediction.speech < 2.7
    assert predict(classifier, AUDIO["happiness"]).warnings == ()


def test_quiet_but_clear_speech_is_heard(classifier: EmotionClassifier) -> None:
    for audio in AUDIO.values():
        assert_close(predict(classifier, np.float32(1e-4) * audio), predict(classifier, audio), 0.01)


@pytest.mark.parametrize("offset", [0.3, -0.05])
def test_a_constant_offset_is_removed_and_said(classifier: EmotionClassifier, offset: float) -> None:
    for audio in AUDIO.values():
        shifted = predict(classifier, 0.5 * audio + np.float32(offset))
        assert_close(shifted, predict(classifier, 0.5 * audio), 0.02)
        assert f"constant offset of {offset:.2g} removed" in shifted.warnings
    (segment,) = classifier.timeline(AUDIO["fear"] * 0.5 + np.float32(offset), sampling_rate=RATE)
    assert segment.probabilities == pytest.approx(predict(classifier, AUDIO["fear"]).probabilities, abs=0.02)


def test_windows_count_by_the_speech_in_them(classifier: EmotionClassifier) -> None:
    from speech_emotion_vit.windows import ClipWindows

    audio = np.concatenate((speech(8.0), zeros(20), AUDIO["sadness"]))
    cut = list(ClipWindows([audio], classifier.config.frontend, vad_filter=True))
    assert len(cut) == 4  # the pause is cut short
    rows = classifier.backend.infer(np.stack([window.samples for window in cut]))[0]
    expected = np.average(rows, axis=0, weights=[window.speech for window in cut])
    assert list(predict(classifier, audio).probabilities.values()) == pytest.approx(expected, abs=1e-5)


def test_a_timeline_knows_where_nobody_speaks(listener: EmotionClassifier) -> None:
    audio = np.concatenate((room(6), np.float32(1e-2) * AUDIO["happiness"], room(6) * np.float32(1e-2)))
    timeline = listener.timeline(audio, sampling_rate=RATE)
    labels = {segment.start: segment.label for segment in timeline}
    assert [labels[start] for start in (0, 1, 2, 9, 10)] == [None] * 5
    assert None not in [labels[start] for start in (4, 5, 6)]
    assert all(set(segment.probabilities.values()) == {0.0} for segment in timeline if segment.label is None)
    (within,) = [segment for segment in timeline if segment.start == 5.0]
    expected = predict(listener, AUDIO["happiness"])
    assert within.probabilities == pytest.approx(expected.probabilities, abs=0.15)
    nobody = [stretch.label is None for stretch in timeline.stretches()]
    assert nobody[0]
    assert nobody[-1]
    assert not any(nobody[1:-1])
    assert "no speech" not in timeline.warnings
    rows = list(csv.DictReader(io.StringIO(timeline.to_csv())))
    assert [row["label"] == "" for row in rows] == [segment.label is None for segment in timeline]
    assert "no speech" in listener.timeline(room(9), sampling_rate=RATE).warnings


def test_all_is_heard_without_the_filter(hearing_all: EmotionClassifier) -> None:
    for sound in NOTHINGS.values():
        prediction = predict(hearing_all, sound)
        assert prediction.label in hearing_all.labels
        assert (prediction.speech, prediction.duration) == (3.0, 3.0)
    assert all(segment.label for segment in hearing_all.timeline(room(9), sampling_rate=RATE))


def test_an_embedding_is_had_of_everything(classifier: EmotionClassifier) -> None:
    embedding = classifier.embed(zeros(3.0), sampling_rate=RATE)
    assert embedding.shape == (classifier.config.model.embedding_dim,)
    assert np.isfinite(embedding).all()


def test_an_explanation_is_of_the_speech(classifier: EmotionClassifier) -> None:
    explanation = classifier.explain(np.concatenate((room(10), AUDIO["fear"], room(10))), sampling_rate=RATE)
    assert explanation.start > 9.5
    assert explanation.end < 10.5 + len(AUDIO["fear"]) / RATE
    assert explanation.prediction.label == predict(classifier, AUDIO["fear"]).label
    nothing = classifier.explain(room(5), sampling_rate=RATE)
    assert (nothing.prediction.label, nothing.prediction.warnings) == (None, ("no speech",))


def gapped(classifier: EmotionClassifier, seconds: float) -> list[Segment]:
    stream = classifier.stream(RATE)
    segments = stream.push(AUDIO["happiness"])
    segments += stream.gap(seconds)
    segments += stream.push(AUDIO["sadness"])
    return segments + stream.flush()


def test_a_gap_in_a_stream_is_time_without_speech(classifier: EmotionClassifier) -> None:
    for seconds in (7.25, 0):
        segments = gapped(classifier, seconds)
        whole = np.concatenate((AUDIO["happiness"], zeros(seconds), AUDIO["sadness"]))
        expected = classifier.timeline(whole, sampling_rate=RATE)
        assert len(segments) == len(expected)
        for one, other in zip(segments, expected, strict=True):
            assert (one.start, one.end, one.speech) == (other.start, other.end, other.speech)
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    stream = classifier.stream(RATE)
    for wrong in (-1, float("nan"), 1e6, "5"):
        with pytest.raises(ConfigError, match="gap must be"):
            stream.gap(wrong)  # type: ignore[arg-type]
    assert stream.duration == 0
    assert [segment.label for segment in stream.gap(12)] == [None] * 9


def test_a_stream_begins_anew(classifier: EmotionClassifier) -> None:
    stream = classifier.stream(RATE, smoothing=2.0)
    stereo = np.stack((AUDIO["fear"], AUDIO["fear"]))
    first = stream.push(stereo) + stream.flush()
    stream.reset()
    assert (stream.duration, stream.warnings) == (0, ())
    (again,) = stream.push(AUDIO["fear"]) + stream.flush()  # of another number of channels
    assert again.probabilities == pytest.approx(first[0].probabilities, abs=1e-5)


def test_a_stream_is_closed_with_its_block(classifier: EmotionClassifier) -> None:
    with classifier.stream(RATE) as stream:
        assert len(stream.push(speech(5.0))) == 2
    with pytest.raises(ConfigError, match=r"flushed: call reset\(\)"):
        stream.push(zeros(1))
    assert stream.flush() == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_the_command_line_says_nobody(tmp_path: Path, form: Literal["csv", "jsonl", "table"]) -> None:
    path = tmp_path / "room.wav"
    soundfile.write(path, room(5), RATE)
    command = [sys.executable, "-m", "speech_emotion_vit", "predict", str(path), "--format", form]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if form == "csv":
        (row,) = csv.DictReader(io.StringIO(plain))
        assert (row["label"], row["score"], row["anger"], row["speech"], row["warnings"]) == (
            "",
            "",
            "",
            "0.0",
            "no speech",
        )
        heard = subprocess.run([*command, "--no-vad-filter"], capture_output=True, text=True, check=True).stdout
        (row,) = csv.DictReader(io.StringIO(heard))
        assert row["label"]
    elif form == "jsonl":
        row = json.loads(plain)
        assert (row["label"], row["speech"]) == (None, 0.0)
    else:
        assert "(nobody)" in plain
        assert "no speech" in plain
