from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from helpers import CLIPS, nothings, speech
from speech_emotion_vit import WeightsError
from speech_emotion_vit.audio import speech as detector
from speech_emotion_vit.audio.speech import find_speech, keep_speech, spectrogram, speech_probability, spoken_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RATE = 16_000
NOTHINGS = nothings(3.0)


def clip(index: int) -> np.ndarray:
    return soundfile.read(CLIPS[index], dtype="float32")[0]


def slow_probability(waveform: np.ndarray) -> np.ndarray:
    """The network from its definition, in torch's convolutions and float64."""
    w = {name: torch.from_numpy(value).double() for name, value in detector.load_weights()._asdict().items()}
    image = functional.pad(torch.from_numpy(spectrogram(waveform)).double(), (0, 0, 32, 32))
    channels, after = w["stem1"].shape[1], w["stem2"].shape[1]
    hidden = functional.conv2d(
        image[None, None],
        w["stem1"].reshape(3, 5, 1, channels).permute(3, 2, 0, 1),
        w["stem1_bias"],
        stride=(1, 2),
        padding=(0, 2),
    ).relu()
    hidden = functional.conv2d(
        hidden,
        w["stem2"].reshape(4, 3, channels, after).permute(3, 2, 0, 1),
        w["stem2_bias"],
        stride=(2, 2),
        padding=(0, 1),
    ).relu()
    hidden = (hidden[0].permute(1, 2, 0).flatten(1) @ w["project"] + w["project_bias"]).relu().T[None]
    width = hidden.shape[1]
    for step, weight, bias in zip((1, 2, 4, 8), w["blocks"], w["blocks_bias"], strict=True):
        kernel = weight.reshape(3, width, width).permute(2, 1, 0)
        hidden = hidden[..., step:-step] + functional.conv1d(hidden, kernel, bias, dilation=step).relu()
    return (hidden[0].T @ w["head"] + w["head_bias"]).sigmoid().numpy()


def slow_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Frame by frame, from the definition."""
    outputs = -(-len(waveform) // 512)
    padded = np.concatenate((np.zeros(128), waveform.astype(np.float64), np.zeros(1024)))
    edges = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([60, 7600]) / 700)), 50) / 2595) - 1)
    frequency = np.arange(257) * 31.25
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    level = np.zeros((2 * outputs, 48))
    for frame in range(2 * outputs):
        power = np.abs(np.fft.rfft(padded[256 * frame :][:512] * window)) ** 2
        for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
            weight = np.interp(frequency, [low, centre, high], [0, 1, 0])
            weight[:2] = 0
            if not weight.any():
                weight[max(2, np.abs(frequency - centre).argmin())] = 1
            emphasis = np.abs(1 - 0.95 * np.exp(-2j * np.pi * centre / 16_000)) ** 2
            level[frame, band] = np.log10(emphasis * (power @ weight) / weight.sum() + 1e-25)
    loudest = [level[max(0, frame - 64) : frame + 65].max() for frame in range(2 * outputs)]
    return np.maximum(0, level - np.array(loudest)[:, None] + 6) / 3


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 20_000])
def test_the_spectrogram_is_what_it_says(samples: int) -> None:
    audio = speech(2.0)[8000 : 8000 + samples]
    np.testing.assert_allclose(spectrogram(audio), slow_spectrogram(audio), atol=2e-4)


@pytest.mark.parametrize("samples", [1, 513, 30_000, 300_000])
def test_the_network_is_that_of_torchs_convolutions(samples: int) -> None:
    audio = speech(20.0)[:samples]
    np.testing.assert_allclose(speech_probability(audio), slow_probability(audio), atol=1e-5)


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.stem)
def test_acted_speech_is_found_and_the_quiet_around_it_is_not(path: Path) -> None:
    audio = soundfile.read(path, dtype="float32")[0]
    room = np.random.default_rng(0).normal(0, 1e-3, 3 * RATE).astype(np.float32)
    found = find_speech(np.concatenate((room, audio, np.zeros_like(room))))
    at = np.flatnonzero(found.spoken) * 512 / RATE
    assert found.seconds > 0.5
    assert at.min() > 2.9
    assert at.max() < 3.1 + len(audio) / RATE


@pytest.mark.parametrize("name", NOTHINGS)
@pytest.mark.parametrize("gain", [1.0, 1e-4])
def test_nobody_speaks_in_noise_tones_and_silence(name: str, gain: float) -> None:
    assert not find_speech(np.float32(gain) * NOTHINGS[name]).spoken.any()


@pytest.mark.parametrize("gain", [1e-5, 1e-2, 30.0])
def test_the_level_means_nothing(gain: float) -> None:
    audio = speech(6.0)
    np.testing.assert_allclose(speech_probability(audio * np.float32(gain)), speech_probability(audio), atol=1e-3)


def test_an_offset_means_nothing() -> None:
    audio = speech(6.0)
    np.testing.assert_array_equal(find_speech(audio + np.float32(0.4)).spoken, find_speech(audio).spoken)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_the_rate_hardly_matters(rate: int) -> None:
    audio = np.concatenate((clip(3), np.zeros(4 * RATE, np.float32), clip(1)))
    kept, seconds = keep_speech(audio)
    other, same = keep_speech(soxr.resample(audio, RATE, rate), rate)
    assert len(other) / rate == pytest.approx(len(kept) / RATE, abs=0.4)
    assert same == pytest.approx(seconds, abs=0.4)


def test_a_pause_is_cut_short() -> None:
    audio = clip(3)
    audio = audio[: len(audio) // 512 * 512]
    pauses = [np.zeros(512 * outputs, np.float32) for outputs in (60, 600)]
    kept = [keep_speech(np.concatenate((audio, pause, audio)))[0] for pause in pauses]
    np.testing.assert_array_equal(*kept)
    assert 2 * keep_speech(audio)[1] * RATE < len(kept[0]) < 2 * len(audio) + RATE // 2


MINUTE = np.concatenate(
    [part for index in range(6) for part in (clip(index), np.zeros((index * 9_000) % 50_000, np.float32))] * 3
)[: 62 * RATE]


@given(cuts=st.lists(st.integers(0, len(MINUTE)), max_size=6), rate=st.sampled_from([16_000, 44_100]))
@settings(max_examples=8, deadline=None)
def test_a_flow_keeps_the_same_however_it_is_cut(cuts: list[int], rate: int) -> None:
    def flow() -> Iterator[np.ndarray]:
        yield from np.split(MINUTE, sorted(cuts))

    whole = np.concatenate(list(spoken_blocks([MINUTE], rate)))
    np.testing.assert_array_equal(np.concatenate(list(spoken_blocks(flow(), rate))), whole)


def test_a_long_flow_keeps_what_is_kept_of_the_whole() -> None:
    found = find_speech(MINUTE)
    per_sample = np.repeat(found.kept, 512)[: len(MINUTE)]
    kept = np.concatenate(list(spoken_blocks([MINUTE])))
    np.testing.assert_array_equal(kept[:, 0], MINUTE[per_sample])
    np.testing.assert_array_equal(kept[:, 1], np.repeat(found.spoken, 512)[: len(MINUTE)][per_sample])


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = bytearray(detector.WEIGHTS_FILE.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    for name, message in (("damaged", "its SHA-256 is another"), ("missing", "cannot be read")):
        monkeypatch.setattr(detector, "WEIGHTS_FILE", tmp_path / f"{name}.safetensors")
        detector.load_weights.cache_clear()
        with pytest.raises(WeightsError, match=message):
            find_speech(speech(1.0))
    monkeypatch.undo()
    detector.load_weights.cache_clear()
    assert find_speech(speech(2.0)).spoken.any()


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from speech_emotion_vit.audio.speech import keep_speech\n"
        "assert keep_speech(np.ones(16000, np.float32))[1] == 0.0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("level", [-60, -50, -70])
@pytest.mark.parametrize("where", ["behind", "before"])
def test_noise_beside_a_voice_is_not_kept_with_it(level: int, where: str) -> None:
    audio = clip(0)
    noise = np.random.default_rng(0).standard_normal(6 * RATE).astype(np.float32) * np.float32(10 ** (level / 20))
    background = 10 ** (level / 20)
    parts = (audio, noise) if where == "behind" else (noise, audio)
    kept, _ = keep_speech(np.concatenate(parts))
    outer = kept[-detector.STEP :] if where == "behind" else kept[: detector.STEP]
    assert outer.std() > 1.5 * background  # no output is noise alone
    assert len(kept) > 0.8 * len(keep_speech(audio)[0])
