from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speech_emotion_vit.errors import ConfigError
from speech_emotion_vit.training.data.specaugment import (
    Augmentation,
    add_noise_floor,
    augment,
    equalize,
    mask_frequency,
    mask_time,
    warp_frequency,
    warp_time,
)

EVERYTHING = Augmentation(
    frequency_warp=0.06,
    frequency_shift=1.0,
    time_warp=0.1,
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


def test_time_warp_keeps_the_share_of_each_clip() -> None:
    warped = warp_time(clips(20, 20, 20, 20), 0.2, seeded(3))
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


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"frequency_warp": -0.1}, "frequency_warp must be from 0"),
        ({"time_masks": -1}, "time_masks must not be negative"),
    ],
)
def test_senseless_values_are_refused(values: dict[str, float], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Augmentation(**values)  # type: ignore[arg-type]
