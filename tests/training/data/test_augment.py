from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from speech_emotion_vit.errors import ConfigError
from speech_emotion_vit.model.config import FrontendConfig
from speech_emotion_vit.training.data.augment import (
    Augmentation,
    add_noise_floor,
    augment,
    equalize,
    mask_frequency,
    mask_time,
    mix,
    warp_frequency,
    warp_time,
)
from speech_emotion_vit.training.data.waveforms import VERSIONS, make_version

FRONTEND = FrontendConfig()
EVERYTHING = Augmentation(
    frequency_warp=0.06,
    frequency_shift=1.0,
    time_warp=0.1,
    time_shift=5,
    equalizer=0.05,
    noise=0.3,
    frequency_masks=2,
    frequency_mask_bands=10,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clips(*lengths: int, bands: int = 64, columns: int = 48) -> Tensor:
    """Random images whose columns from `length` on are padding."""
    images = torch.rand(len(lengths), 1, bands, columns, generator=seeded(1)) * 0.9 + 0.05
    for image, length in zip(images, lengths, strict=True):
        image[..., length:] = 0
    return images


def real(images: Tensor) -> Tensor:
    return images.amax(dim=2)[:, 0] > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda images, g: warp_frequency(images, 0.1, 2.0, g),
        lambda images, g: equalize(images, 0.3, g),
        lambda images, g: add_noise_floor(images, 0.9, g),
        lambda images, g: mask_frequency(images, 30, g),
    ],
)
def test_padding_stays_and_the_rest_stays_real(change: object) -> None:
    images = clips(48, 20, 1, 35)
    changed = change(images, seeded())  # type: ignore[operator]
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    assert torch.equal(real(changed), real(images))
    assert (changed[~(real(images)[:, None, None].expand_as(images))] == 0).all()


def test_all_of_it_is_decided_by_the_generator_and_finite() -> None:
    images = clips(48, 20, 1, 35)
    state = torch.get_rng_state()
    one, again, other = (augment(images, EVERYTHING, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.isfinite(one).all()
    assert one.min() >= 0
    assert torch.equal(torch.get_rng_state(), state)


def test_silence_stays_silence() -> None:
    silent = torch.zeros(3, 1, 64, 48)
    assert torch.equal(augment(silent, EVERYTHING, seeded()), silent)


def test_the_default_does_nothing() -> None:
    images = clips(48, 3)
    assert not Augmentation().active
    assert EVERYTHING.active
    assert torch.equal(augment(images, Augmentation(), seeded()), images)


def test_frequency_warp_moves_bands_as_the_formula_says() -> None:
    ramp = torch.arange(64.0).view(1, 1, 64, 1).expand(2, 1, 64, 5) / 100  # the value is the band: it shows its source
    g = seeded(7)
    stretch = (0.1 * torch.randn(2, 1, generator=g)).exp()
    shift = 3.0 * torch.randn(2, 1, generator=g)
    expected = (torch.arange(64.0) * stretch + shift).clamp(0, 63) / 100
    warped = warp_frequency(ramp, 0.1, 3.0, seeded(7))
    assert torch.allclose(warped[:, 0, :, 2], expected, atol=1e-5)


def test_time_shift_moves_the_clip_to_the_right() -> None:
    images = clips(10, 10, 10, 10)
    moved = warp_time(images, 0.0, 20, seeded(2))
    starts = [int(row.nonzero()[0]) for row in real(moved)]
    assert len(set(starts)) > 1
    for image, shifted, start in zip(images, moved, starts, strict=True):
        assert 0 <= start <= 20
        assert torch.allclose(shifted[..., start : start + 10], image[..., :10])
        assert int(real(shifted[None]).sum()) == 10


def test_time_warp_keeps_the_share_of_each_clip() -> None:
    warped = warp_time(clips(20, 20, 20, 20), 0.2, 0, seeded(3))
    lengths = real(warped).sum(dim=1)
    assert lengths.min() < 20 < lengths.max()
    assert lengths.min() > 8
    assert lengths.max() < 45


def test_the_noise_floor_only_raises_and_only_half_of_the_clips() -> None:
    images = clips(*[30] * 200) * 0.05
    noisy = add_noise_floor(images, 0.5, seeded())
    assert (noisy >= images).all()
    assert 70 < int((noisy != images).flatten(1).any(dim=1).sum()) < 130


def test_masks_are_bands_of_the_clips_mean() -> None:
    images = clips(*[20] * 50)
    masked = mask_frequency(images, 10, seeded())
    widths = []
    for before, after in zip(images, masked, strict=True):
        changed = (before != after)[0, :, :20].all(dim=1).nonzero().flatten()
        widths.append(len(changed))
        if len(changed):
            assert changed.tolist() == list(range(int(changed[0]), int(changed[-1]) + 1))
            assert torch.allclose(after[0, changed, :20], before[0, :, :20].mean(), atol=1e-5)
    assert max(widths) == 10
    assert min(widths) < 2


def test_masked_moments_are_columns_of_the_clips_mean() -> None:
    images = clips(*[20] * 50)
    masked = mask_time(images, 6, seeded())
    assert not masked[..., 20:].any()
    widths = []
    for before, after in zip(images, masked, strict=True):
        changed = (before != after)[0].all(dim=0).nonzero().flatten()
        widths.append(len(changed))
        if len(changed):
            assert changed.tolist() == list(range(int(changed[0]), int(changed[-1]) + 1))
            assert torch.allclose(after[0, :, changed], before[0, :, :20].mean(), atol=1e-5)
    assert max(widths) == 6
    assert min(widths) == 0


def test_mixing_adds_powers_and_targets_alike() -> None:
    images = torch.zeros(2, 1, 4, 3)
    images[0, :, 0], images[1, :, 1] = 1.0, 0.5  # 0 and -40 dB in different bands
    images[1, ..., 2] = 0  # one column is padding in one clip only
    targets = torch.eye(2)
    mixed, weights = mix(images, targets, 0.4, 80.0, seeded(6))
    assert weights.sum(dim=1) == pytest.approx(torch.ones(2))
    assert (weights.diagonal() >= 0.5).all()
    share = float(weights[0, 0])
    assert share < 1, "this seed must mix each with the other"
    assert float(mixed[0, 0, 0, 0]) == pytest.approx(np.log10(share * 1e8 + 1 - share) / 8, abs=1e-5)
    assert float(mixed[0, 0, 1, 0]) == pytest.approx(np.log10((1 - share) * 1e4 + share) / 8, abs=1e-5)
    assert (mixed[:, :, 2:] == 0).all()


def test_mixing_keeps_common_padding() -> None:
    images = clips(10, 25, 48, 10)
    mixed, _ = mix(images, torch.eye(4), 0.4, 80.0, seeded())
    assert torch.equal(real(mixed) | real(images), real(mixed))
    assert not real(mixed[[0, 3]])[:, 48:].any()
    assert mixed.max() <= 1


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"frequency_warp": -0.1}, "frequency_warp must be from 0"),
        ({"time_shift": -1}, "time_shift must not be negative"),
    ],
)
def test_senseless_values_are_refused(values: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Augmentation(**values)  # type: ignore[arg-type]


# The paper's three, as waveforms.


@pytest.fixture
def speech(rng: np.random.Generator) -> np.ndarray:
    time = np.arange(2 * 16_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 400 * time) * (1 + np.sin(2 * np.pi * 3 * time)) / 2).astype(np.float32)


def test_the_original_is_untouched(speech: np.ndarray) -> None:
    assert make_version(speech, 0, FRONTEND, key="a") is speech


def test_noise_fills_the_padding_at_the_stated_level(speech: np.ndarray) -> None:
    noisy = make_version(speech, 1, FRONTEND, key="a")
    assert len(noisy) == FRONTEND.window_samples
    noise = noisy - np.pad(speech, (0, len(noisy) - len(speech)))
    ratio = 10 * np.log10(np.mean(speech.astype(float) ** 2) / np.mean(noise.astype(float) ** 2))
    assert ratio == pytest.approx(20, abs=0.1)
    assert np.abs(noisy[len(speech) :]).max() > 0
    assert (noisy == make_version(speech, 1, FRONTEND, key="a")).all()
    assert (noisy != make_version(speech, 1, FRONTEND, key="b")).any()


def test_shift_puts_a_third_of_the_window_before_the_clip(speech: np.ndarray) -> None:
    shifted = make_version(speech, 2, FRONTEND, key="a")
    third = round(FRONTEND.window_samples / 3)
    assert (shifted[:third] == 0).all()
    assert (shifted[third:] == speech).all()
    long = make_version(np.ones(60_000, np.float32), 2, FRONTEND, key="a")
    assert len(long) == FRONTEND.window_samples


def test_speed_is_shorter_at_the_same_pitch(speech: np.ndarray) -> None:
    fast = make_version(speech, 3, FRONTEND, key="a")
    assert len(fast) == pytest.approx(len(speech) / 1.2, rel=0.01)
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert spectrum.argmax() * 16_000 / len(fast) == pytest.approx(400, abs=5)
    assert (fast == make_version(speech, 3, FRONTEND, key="b")).all()


def test_the_pool_is_four_fold() -> None:
    assert [version.name for version in VERSIONS] == ["original", "noise", "shift", "speed"]
