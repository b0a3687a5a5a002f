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
