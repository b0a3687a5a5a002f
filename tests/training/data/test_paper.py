from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from speech_emotion_vit.model.config import FrontendConfig
from speech_emotion_vit.training.data.augment import VERSIONS, alter
from speech_emotion_vit.training.data.corpora import Utterance

FRONTEND = FrontendConfig()


def recording(name: str, version: str) -> Utterance:
    return Utterance(id=name, path=Path(name), label="fear", speaker="").altered(version)


@pytest.fixture
def speech(rng: np.random.Generator) -> np.ndarray:
    time = np.arange(2 * 16_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 400 * time) * (1 + np.sin(2 * np.pi * 3 * time)) / 2).astype(np.float32)


def test_the_original_is_untouched(speech: np.ndarray) -> None:
    assert alter(speech, recording("a", "original"), FRONTEND) is speech


def test_noise_fills_the_padding_at_the_stated_level(speech: np.ndarray) -> None:
    noisy = alter(speech, recording("a", "noise"), FRONTEND)
    assert len(noisy) == FRONTEND.window_samples
    noise = noisy - np.pad(speech, (0, len(noisy) - len(speech)))
    ratio = 10 * np.log10(np.mean(speech.astype(float) ** 2) / np.mean(noise.astype(float) ** 2))
    assert ratio == pytest.approx(20, abs=0.1)
    assert np.abs(noisy[len(speech) :]).max() > 0
    assert (noisy == alter(speech, recording("a", "noise"), FRONTEND)).all()
    assert (noisy != alter(speech, recording("b", "noise"), FRONTEND)).any()


def test_shift_puts_a_third_of_the_window_before_the_clip(speech: np.ndarray) -> None:
    shifted = alter(speech, recording("a", "shift"), FRONTEND)
    third = round(FRONTEND.window_samples / 3)
    assert (shifted[:third] == 0).all()
    assert (shifted[third:] == speech).all()
    long = alter(np.ones(60_000, np.float32), recording("a", "shift"), FRONTEND)
    assert len(long) == FRONTEND.window_samples


def test_speed_is_shorter_at_the_same_pitch(speech: np.ndarray) -> None:
    fast = alter(speech, recording("a", "speed"), FRONTEND)
    assert len(fast) == pytest.approx(len(speech) / 1.2, rel=0.01)
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert spectrum.argmax() * 16_000 / len(fast) == pytest.approx(400, abs=5)
    assert (fast == alter(speech, recording("b", "speed"), FRONTEND)).all()


def test_the_pool_is_four_fold() -> None:
    assert list(VERSIONS) == ["original", "noise", "shift", "speed"]
