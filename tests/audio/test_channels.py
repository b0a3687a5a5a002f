"""One channel of several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from helpers import encoded, speech, tone
from speech_emotion_vit import AudioError, ConfigError, EmotionClassifier
from speech_emotion_vit.audio.reader import AudioReader

LEFT, RIGHT = tone(440, 2.0), tone(660, 2.0)
BOTH = np.stack((LEFT, RIGHT))


def read(source: Any, **options: Any) -> tuple[np.ndarray, AudioReader]:
    reader = AudioReader(source, **options)
    return np.concatenate(list(reader)), reader


@pytest.mark.parametrize("kind", ["file", "array", "tensor"])
def test_a_channel_is_heard_alone(kind: str) -> None:
    source: Any = {"file": encoded(BOTH.T), "array": BOTH, "tensor": torch.from_numpy(BOTH)}[kind]
    options = {} if kind == "file" else {"sampling_rate": 16_000}
    for channel, expected in ((0, LEFT), (1, RIGHT), ("mix", (LEFT + RIGHT) / 2), (np.int64(1), RIGHT)):
        assert np.abs(read(source, channel=channel, **options)[0] - expected).max() < 1e-4
    with pytest.raises(AudioError, match=r"has 2 channels, 0 to 1: channel=2 is not there"):
        AudioReader(source, channel=2, **options)
    with pytest.raises(AudioError, match=r"has one channel, 0: channel=1 is not there"):
        AudioReader(LEFT, channel=1, sampling_rate=16_000)


@pytest.mark.parametrize("channel", [-1, True, None, 1.0, "left", "split", "0", "x" * 10_000, (0, 1)])
def test_channels_that_are_none(channel: Any) -> None:
    with pytest.raises(ConfigError, match="channel must be 'mix' or a number from 0") as caught:
        AudioReader(BOTH, channel=channel, sampling_rate=16_000)
    assert len(str(caught.value)) < 200


def test_what_is_wrong_with_another_channel_is_not_said() -> None:
    broken = np.stack((0.5 * LEFT, np.clip(8 * RIGHT, -1, 1)))
    broken[1, 100] = np.nan
    _, reader = read(broken, channel=0, sampling_rate=16_000)
    assert reader.warnings == ()
    with pytest.raises(AudioError, match="sample 100 is NaN"):
        read(broken, channel=1, sampling_rate=16_000)


def test_every_method_takes_a_channel(hearing_all: EmotionClassifier) -> None:
    classifier = hearing_all  # with the filter, predict leaves pauses out, and a timeline does not
    left, right = speech(8.0)[:48_000], speech(16.0)[-48_000:]
    call = np.stack((left, right))
    options: dict[str, Any] = {"sampling_rate": 16_000}
    for channel, alone in enumerate((left, right)):
        expected = classifier.predict(alone, **options)
        found = [
            classifier.predict(call, channel=channel, **options),
            classifier.predict_batch([call], channel=channel, **options)[0],
            classifier.timeline(call, channel=channel, **options).segments[0],
            classifier.explain(call, channel=channel, **options).prediction,
        ]
        for each in found:
            assert each.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        embedding = classifier.embed(call, channel=channel, **options)
        assert embedding == pytest.approx(classifier.embed(alone, **options), abs=1e-4)
        stream = classifier.stream(16_000, channel=channel)
        (segment,) = [*stream.push(call), *stream.flush()]
        assert segment.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
    refused, good = classifier.predict_batch([left, call], channel=1, errors="return", **options)
    assert isinstance(refused, AudioError)
    assert not isinstance(good, AudioError)
    with pytest.raises(ConfigError, match="channel must be"):
        classifier.predict_batch([call], channel="left", **options)  # type: ignore[call-overload]


TURNS = speech(12.0)
LITTLE_IN_COMMON = (
    "the two channels have little in common, as of two speakers, and are mixed: "
    "choose one with channel=0 or 1, or --channel split"
)


def call() -> np.ndarray:
    """Two people who speak by turns, each on a channel of their own, with a little noise."""
    left, right = (np.where(np.arange(len(TURNS)) // 40_000 % 2 == side, TURNS, 0) for side in (0, 1))
    return np.stack((left, 0.3 * right)) + np.random.default_rng(0).normal(0, 1e-3, (2, len(TURNS)))


def spaced() -> np.ndarray:
    """One speaker, heard by two microphones in a room that answers each in its own way."""
    random = np.random.default_rng(1)
    ears = []
    for delay in (0, 150):
        room = random.normal(size=4000) * np.exp(-np.arange(4000) / 800)
        room[0] = 8
        ears.append(np.convolve(TURNS, np.concatenate((np.zeros(delay), room)))[: len(TURNS)] * 0.05)
    return np.stack(ears)


def test_two_speakers_on_two_channels_are_not_mixed_without_a_word() -> None:
    samples, reader = read(call().astype(np.float32), sampling_rate=16_000)
    assert reader.warnings == (LITTLE_IN_COMMON,)
    together, at_once = read(encoded(np.stack((TURNS, np.roll(TURNS, 90_000)), axis=1))), call() * 0.1
    assert LITTLE_IN_COMMON in together[1].warnings
    assert read(at_once.T, sampling_rate=16_000)[1].warnings == (LITTLE_IN_COMMON,)
    assert len(samples) == len(TURNS)
    for channel in (0, 1):
        assert read(call(), sampling_rate=16_000, channel=channel)[1].warnings == ()


def test_channels_that_cancel_each_other_are_told() -> None:
    _, reader = read(np.stack((0.5 * TURNS, -0.4 * TURNS)), sampling_rate=16_000)
    assert [warning.split(":")[0] for warning in reader.warnings] == [
        "the two channels cancel each other when they are mixed"
    ]


NOISE = np.random.default_rng(2).normal(0, 0.05, len(TURNS))
ONE_SPEAKER = {
    "the same": np.stack((TURNS, TURNS)),
    "to one side": np.stack((0.2 * TURNS, TURNS)),
    "spaced microphones": spaced(),
    "a silent channel": np.stack((TURNS, 0 * TURNS)),
    "a channel of noise": np.stack((TURNS, NOISE)),
    "leakage": np.stack((TURNS, 1e-3 * np.roll(TURNS, 20_000))),
    "two noises": np.stack((NOISE, np.roll(NOISE, 100))),
    "a moment": np.stack((TURNS, np.roll(TURNS, 90_000)))[:, :16_000],
    "three channels": np.stack((TURNS, np.roll(TURNS, 90_000), TURNS)),
}


@pytest.mark.parametrize("samples", ONE_SPEAKER.values(), ids=ONE_SPEAKER)
def test_what_may_be_mixed_is_mixed_without_a_word(samples: np.ndarray) -> None:
    assert [w for w in read(samples, sampling_rate=16_000)[1].warnings if "channel" in w] == []


def test_a_stream_hears_two_speakers_however_it_is_chunked(classifier: EmotionClassifier) -> None:
    samples = call()
    for size in (3333, 16_000):
        stream = classifier.stream(16_000)
        for start in range(0, len(TURNS), size):
            stream.push(samples[:, start : start + size])
        assert LITTLE_IN_COMMON in stream.warnings
