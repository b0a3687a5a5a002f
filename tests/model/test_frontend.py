from __future__ import annotations

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import CLIPS, tone
from speech_emotion_vit import AudioError, FrontendConfig, LogMel
from speech_emotion_vit.model.mel import mel_filterbank


def reference_image(waveform: np.ndarray, config: FrontendConfig) -> np.ndarray:
    """The front-end again, slowly, in float64, from scipy and librosa."""
    padded = np.zeros(config.window_samples)
    padded[: len(waveform)] = waveform
    _, _, spectrum = scipy.signal.stft(
        padded,
        fs=config.sampling_rate,
        window=scipy.signal.get_window(config.window, config.win_length, fftbins=True),
        nperseg=config.win_length,
        noverlap=config.win_length - config.hop_length,
        nfft=config.n_fft,
        boundary="zeros",
        padded=False,
        scaling="spectrum",
    )
    filterbank = librosa.filters.mel(
        sr=config.sampling_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        htk=config.mel_scale == "htk",
        norm="slaney" if config.mel_norm == "slaney" else None,
        dtype=np.float64,
    )
    power = filterbank @ np.abs(spectrum) ** 2
    assert power.shape == (config.n_mels, config.n_frames)
    level = librosa.power_to_db(power, ref=np.max, amin=1e-30, top_db=config.top_db) / config.top_db + 1
    ratio = config.n_frames / config.columns
    reach = ratio if config.interpolation == "antialias" else 1.0
    image = np.empty((config.n_mels, config.columns))
    for column in range(config.columns):
        distance = np.abs(np.arange(config.n_frames) + 0.5 - (column + 0.5) * ratio)
        weights = np.maximum(0, 1 - distance / reach)
        image[:, column] = level @ (weights / weights.sum())
    return image


CONFIGS = [
    FrontendConfig(),
    FrontendConfig(interpolation="linear", mel_scale="htk", mel_norm="none", window="hann"),
    FrontendConfig(f_min=60.0, f_max=7600.0, n_mels=64, columns=100, top_db=60.0),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["default", "linear-htk-hann", "narrow"])
def test_agrees_with_an_independent_float64_reference(config: FrontendConfig) -> None:
    frontend = LogMel(config)
    for clip in CLIPS:
        waveform, _ = soundfile.read(clip, dtype="float32")
        image = frontend(torch.from_numpy(waveform)[None])[0, 0].numpy()
        assert np.abs(image - reference_image(waveform, config)).max() < 1e-4


@pytest.mark.parametrize("frequency", [200.0, 1000.0, 3000.0, 6000.0])
def test_a_tone_is_loudest_in_the_band_around_it(frequency: float) -> None:
    image = LogMel()(torch.from_numpy(tone(frequency, 1.0))[None])[0, 0]
    edges = librosa.mel_frequencies(n_mels=130, fmin=0, fmax=8000)
    band = int(image[:, 16].argmax())
    assert edges[band] < frequency < edges[band + 2]
    assert image[band, 16] > 0.95


def test_silence_and_padding_are_exactly_zero() -> None:
    frontend = LogMel()
    assert torch.equal(frontend(torch.zeros(2, 64_000)), torch.zeros(2, 1, 128, 128))
    image = frontend(torch.from_numpy(tone(440, 1.0))[None])[0, 0]
    assert (image[:, :31].amax(dim=0) > 0).all()
    assert torch.equal(image[:, 35:], torch.zeros(128, 93))


def test_values_span_zero_to_one_and_are_finite() -> None:
    noise = torch.randn(3, 40_000, generator=torch.Generator().manual_seed(0))
    image = LogMel()(noise)
    assert image.shape == (3, 1, 128, 128)
    assert image.isfinite().all()
    assert image.min() == 0
    assert 0.8 < image.max() <= 1


@given(gain=st.floats(-60, 60))
@settings(max_examples=20, deadline=None)
def test_a_gain_changes_nothing(gain: float) -> None:
    waveform = torch.from_numpy(soundfile.read(CLIPS[0], dtype="float32")[0])[None]
    frontend = LogMel()
    torch.testing.assert_close(frontend(waveform * 10 ** (gain / 20)), frontend(waveform), atol=1e-5, rtol=0)


def test_doubling_the_amplitude_adds_six_decibels() -> None:
    """A quiet second half lies 20 log10(2) / 80 lower in the image when halved."""
    frontend = LogMel()
    waveform = torch.from_numpy(tone(1000, 2.0))[None]
    quiet = waveform.clone()
    quiet[:, 16_000:] *= 0.5
    drop = (frontend(waveform) - frontend(quiet))[0, 0, :, 48]
    band = int(frontend(waveform)[0, 0, :, 48].argmax())
    assert drop[band] == pytest.approx(20 * np.log10(2) / 80, abs=1e-4)


@given(samples=st.integers(1, 64_000))
@settings(max_examples=30, deadline=None)
def test_frames_left_out_change_nothing(samples: int) -> None:
    """The short way computes fewer frames and gives the same image as explicit zero padding."""
    frontend = LogMel()
    waveform = torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))
    padded = torch.zeros(1, 64_000)
    padded[:, :samples] = waveform
    torch.testing.assert_close(frontend(waveform), frontend(padded), atol=1e-6, rtol=0)
    half = frontend.config.win_length // 2
    assert frontend.mel_power(waveform).shape[1] == min(1001, -(-(samples + half) // 64))
    assert frontend.mel_power(padded).shape[1] == 1001


def test_a_row_of_a_batch_is_the_single_image() -> None:
    frontend = LogMel()
    batch = torch.randn(4, 30_000, generator=torch.Generator().manual_seed(1))
    for row, image in zip(batch, frontend(batch), strict=True):
        torch.testing.assert_close(image, frontend(row[None])[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(16_000,), (1, 0), (1, 1, 16_000), (1, 64_001)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match=r"\[batch, samples\]|more than one window"):
        LogMel()(torch.zeros(shape))


def test_nothing_of_the_front_end_is_in_a_checkpoint() -> None:
    assert LogMel().state_dict() == {}


@pytest.mark.parametrize(("samples", "batch"), [(64_000, 2), (17_000, 1)])
def test_blocks_of_frames_and_bands_are_the_whole_product(samples: int, batch: int) -> None:
    """One transform and one dense product over all bins, in float64."""
    waveform = torch.randn(batch, samples, generator=torch.Generator().manual_seed(2))
    frontend = LogMel()
    power = frontend.mel_power(waveform)
    padded = torch.nn.functional.pad(waveform.double(), (256, 512))
    frames = padded.unfold(1, 512, 64)[:, : power.shape[1]] * torch.hamming_window(512, dtype=torch.float64)
    spectrum = torch.fft.rfft(frames, n=1024).abs().square()
    filterbank = mel_filterbank(16_000, 1024, 128, 0.0, 8000.0, "slaney", "slaney")
    expected = spectrum @ torch.from_numpy(filterbank)
    torch.testing.assert_close(power.double(), expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_the_image_has_a_gradient() -> None:
    waveform = torch.from_numpy(tone(440, 1.0))[None].requires_grad_()
    LogMel()(waveform).sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()
    assert waveform.grad.abs().max() > 0


def test_only_frames_that_touch_audio_are_computed() -> None:
    noise = torch.rand(1, 64_000, generator=torch.Generator().manual_seed(0)) - 0.5
    for samples in (1, 100, 16_000, 40_000, 64_000):
        power = LogMel().mel_power(noise[:, :samples])
        assert power.shape[1] == min(1001, -(-(samples + 256) // 64))
        assert power[0, -1].any()
