from __future__ import annotations

from contextlib import suppress
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import speech
from speech_emotion_vit import AudioError, ConfigError, EmotionClassifier, EmotionStream, Segment

RATES = (8_000, 16_000, 22_050, 44_100, 48_000)
RECORDINGS = {rate: soxr.resample(speech(7.0), 16_000, rate) for rate in RATES}


def assert_same(one: list[Segment], other: tuple[Segment, ...]) -> None:
    assert [(s.start, s.end, s.speech) for s in one] == [(s.start, s.end, s.speech) for s in other]
    np.testing.assert_allclose(
        [list(s.probabilities.values()) for s in one],
        [list(s.probabilities.values()) for s in other],
        atol=1e-5,
        rtol=0,
    )


def encoded(audio: np.ndarray, kind: str) -> np.ndarray:
    if kind.startswith("float"):
        return audio.astype(kind)
    if kind == "uint8":
        return np.round(audio * 127 + 128).astype(np.uint8)
    info = np.iinfo(kind)
    return np.clip(audio.astype(np.float64) * -float(info.min), info.min, info.max).astype(kind)


@given(
    rate=st.sampled_from(RATES),
    seconds=st.floats(0.01, 7.0),
    chunks=st.lists(st.integers(0, 30_000), min_size=1, max_size=8).filter(lambda sizes: max(sizes) > 500),
    kind=st.sampled_from(["float32", "float64", "float16", "uint8", "int16", "int32"]),
    stereo=st.booleans(),
    hop=st.floats(0.2, 5.0),
    window=st.one_of(st.none(), st.floats(0.1, 4.0)),
    smoothing=st.sampled_from([0.0, 1.5]),
)
@settings(max_examples=25, deadline=None)
def test_a_stream_gives_the_segments_of_the_timeline(
    classifier: EmotionClassifier,
    rate: int,
    seconds: float,
    chunks: list[int],
    kind: str,
    stereo: bool,
    hop: float,
    window: float | None,
    smoothing: float,
) -> None:
    audio = encoded(RECORDINGS[rate][: max(2, round(seconds * rate))], kind)
    if stereo:
        audio = np.stack((audio, audio[::-1]))
        chunks = [2, *chunks]  # the first chunk tells the layout: two channels need two samples
    options = {"hop": hop, "window": window, "smoothing": smoothing}
    stream = classifier.stream(rate, **options)
    segments: list[Segment] = []
    position = 0
    for size in cycle(chunks):
        segments += stream.push(audio[..., position : position + size])
        position += size
        if position >= audio.shape[-1]:
            break
    segments += stream.flush()
    timeline = classifier.timeline(audio, sampling_rate=rate, **options)
    assert_same(segments, timeline.segments)
    assert (stream.duration, stream.warnings) == (timeline.duration, timeline.warnings)


def test_single_samples_are_chunks_too(classifier: EmotionClassifier) -> None:
    audio = speech(0.3)
    stream = classifier.stream(16_000, hop=0.05, window=0.1)
    segments = [segment for sample in audio for segment in stream.push(np.array([sample]))] + stream.flush()
    timeline = classifier.timeline(audio, sampling_rate=16_000, hop=0.05, window=0.1)
    assert len(segments) == 5
    assert_same(segments, timeline.segments)


def test_a_segment_comes_with_the_chunk_that_completes_it(classifier: EmotionClassifier) -> None:
    audio = speech(5.2)
    stream = classifier.stream(16_000, hop=0.5)
    came = {}
    for start in range(0, len(audio), 1600):
        for segment in stream.push(audio[start : start + 1600]):
            came[segment.end] = (start + 1600) / 16_000
    assert came == {4.0: 4.0, 4.5: 4.5, 5.0: 5.0}
    (last,) = stream.flush()
    assert (last.start, last.end) == (pytest.approx(1.2), pytest.approx(5.2))


def test_nothing_is_left_to_flush_where_a_window_ends_with_the_audio(classifier: EmotionClassifier) -> None:
    stream = classifier.stream(16_000)
    assert len(stream.push(speech(5.0))) == 2
    assert stream.flush() == []
    assert classifier.stream(44_100).flush() == []


def test_tensors_are_chunks(classifier: EmotionClassifier) -> None:
    audio = speech(1.0)
    one, other = classifier.stream(16_000, window=1.0), classifier.stream(16_000, window=1.0)
    assert one.push(torch.from_numpy(audio)) == other.push(audio)


@pytest.mark.parametrize("hop", [4.0, 1e6])
def test_a_live_stream_keeps_no_more_than_two_windows(classifier: EmotionClassifier, hop: float) -> None:
    stream = classifier.stream(16_000, hop=hop)
    audio = speech(20.0)
    segments = []
    for start in range(0, len(audio), 1600):
        segments += stream.push(audio[start : start + 1600])
        held = stream._segmenter._buffer.nbytes + sum(piece.nbytes for piece in stream._segmenter._arrived)
        assert held <= 2 * 64_000 * 4
    assert stream.duration == pytest.approx(20.0)
    assert_same(segments + stream.flush(), classifier.timeline(audio, sampling_rate=16_000, hop=hop).segments)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ([0.1, 0.2], "a chunk must be a numpy array or a torch tensor, not list"),
        (b"\0\0", r"numpy\.frombuffer"),
        (np.zeros((2, 3, 4)), r"must be \[samples\] or \[channels, samples\], not <ndarray \[2, 3, 4\]>"),
        (np.float32(0.5), "a chunk must be"),
        (np.array(0.5), r"not <ndarray \[\]>"),
        (np.zeros(10, np.int64), "cannot take an array of int64: pass floats or integer PCM up to 32 bit"),
        (np.zeros(10, complex), "cannot take an array of complex128"),
        (np.array(["a"]), "cannot take an array of <U1"),
        (np.zeros((2, 100)), "a chunk of 2 channels in a stream of 1: keep one layout"),
        (np.full(100, np.nan), "sample 1600 is NaN"),
        (np.array([0.0, np.inf]), "sample 1601 is infinite"),
        (torch.zeros(10, dtype=torch.int64), r"cannot take a tensor of torch\.int64"),
    ],
)
def test_a_refused_chunk_is_one_line_and_leaves_no_trace(
    classifier: EmotionClassifier, chunk: object, message: str
) -> None:
    audio = speech(2.0)
    stream = classifier.stream(16_000)
    stream.push(audio[:1600])
    with pytest.raises(AudioError, match=message) as caught:
        stream.push(chunk)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    stream.push(audio[1600:])
    assert_same(stream.flush(), classifier.timeline(audio, sampling_rate=16_000).segments)


def test_a_chunk_the_wrong_way_round_is_refused(classifier: EmotionClassifier) -> None:
    stream = classifier.stream(48_000)
    with pytest.raises(AudioError, match=r"480 channels of 20 samples: pass chunk\.T"):
        stream.push(np.zeros((480, 20)))
    assert stream.push(np.zeros((1, 480))) == []


def test_chunks_come_as_sounddevice_gives_them(classifier: EmotionClassifier) -> None:
    audio = np.stack((speech(9.0), 0.5 * speech(9.0)))
    streams = [classifier.stream(16_000) for _ in range(2)]
    for start in range(0, audio.shape[1], 1600):
        chunk = audio[:, start : start + 1600]
        assert streams[0].push(chunk) == streams[1].push(chunk.T)
    assert streams[0].flush() == streams[1].flush()
    assert streams[1].duration == 9.0


def test_chunks_of_nothing_and_of_less_samples_than_channels_are_chunks(classifier: EmotionClassifier) -> None:
    audio = np.stack((speech(1.0), np.roll(speech(1.0), 1)))
    stream = classifier.stream(16_000)
    assert stream.push(np.zeros((0, 2), np.float32)) == stream.push(np.zeros((2, 0), np.float32)) == []
    stream.push(audio[:, :1])
    stream.push(audio[:, 1:])
    assert_same(stream.flush(), classifier.timeline(audio, sampling_rate=16_000).segments)


def test_the_rate_cannot_change(classifier: EmotionClassifier) -> None:
    stream = classifier.stream(16_000)
    stream.push(speech(0.1), sampling_rate=16_000)
    with pytest.raises(AudioError, match="a chunk at 48000 Hz in a stream at 16000 Hz"):
        stream.push(speech(0.1), sampling_rate=48_000)
    assert stream.duration == pytest.approx(0.1)
    for rate in (0, 1000, 16_000.5, "16000", None):
        with pytest.raises(AudioError, match="stream: sampling rate"):
            classifier.stream(rate)  # type: ignore[arg-type]


def test_nothing_follows_a_flush(classifier: EmotionClassifier) -> None:
    stream = classifier.stream(16_000)
    stream.push(speech(1.0))
    assert len(stream.flush()) == 1
    assert stream.flush() == []
    with pytest.raises(ConfigError, match=r"the stream has been flushed: call reset\(\)"):
        stream.push(speech(1.0))
    assert repr(stream) == "<EmotionStream 16000 Hz, 1.00 s so far, flushed>"
    assert isinstance(stream, EmotionStream)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop": 0}, "hop must be at least one sample"),
        ({"hop": -2}, "hop must be from 0"),
        ({"hop": float("nan")}, "hop must be from 0"),
        ({"window": 0.02}, "shorter than one frame of 0.032 s"),
        ({"smoothing": float("inf")}, "smoothing must be from 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    classifier: EmotionClassifier, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        classifier.stream(16_000, **options)


@pytest.mark.parametrize("interrupted", range(1, 5))
def test_an_interrupted_network_costs_no_segment(
    hearing_all: EmotionClassifier, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    classifier = hearing_all
    audio = speech(21.3)  # two batches, one and the last window
    expected = classifier.timeline(audio, sampling_rate=16_000, smoothing=2.0).segments
    infer, calls = classifier.backend.infer_cut, 0

    def interrupts(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == interrupted:
            raise KeyboardInterrupt
        return infer(*arguments)

    monkeypatch.setattr(classifier.backend, "infer_cut", interrupts)
    stream = classifier.stream(16_000, smoothing=2.0)
    segments: list[Segment] = []
    for chunk in (audio[:-16_000], audio[-16_000:]):
        with suppress(KeyboardInterrupt):
            segments += stream.push(chunk)
    for _ in range(2):
        with suppress(KeyboardInterrupt):
            segments += stream.flush()
    assert_same(segments, expected)
    assert stream.flush() == []
    assert calls > interrupted
