"""Augmentation of log-Mel images, a batch at a time, in plain torch on the batch's device.

Images are `[batch, 1, n_mels, columns]` in 0..1 and exactly 0 where there is padding; every function keeps that
padding. All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import ConfigError

EQUALIZER_KNOTS = 6  # points of the random curve over the bands: smooth over about 25 of them
NOISE_KNOTS = 4  # points of the noise floor's tilt over the bands
NOISE_TILT = 0.1  # of the image's range: 8 dB at 80 dB
NOISE_GRAIN = 0.03  # of the image's range: how far single values of the noise stray
AUDIBLE = 1e-3  # of the image's range, 0.08 dB: what a real column keeps at least, so that it stays one


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a training image; the defaults do nothing.

    Raises:
        ConfigError: a value is out of range.
    """

    frequency_warp: float = 0.0
    """Standard deviation of the logarithm of a stretch along the Mel axis: vocal tracts differ in length."""
    frequency_shift: float = 0.0
    """Standard deviation in bands of a move along the Mel axis."""
    time_warp: float = 0.0
    """Standard deviation of the logarithm of a stretch in time: people differ in pace."""
    equalizer: float = 0.0
    """Standard deviation of a smooth gain curve over the bands, in parts of the image's range: microphones, rooms."""
    noise: float = 0.0
    """Highest level of a noise floor under half of the clips, in parts of the image's range."""
    frequency_masks: int = 0
    """Number of bands of masking; what is masked becomes the clip's mean."""
    frequency_mask_bands: int = 0
    """Widest mask in bands."""
    time_masks: int = 0
    """Number of moments of masking; what is masked becomes the clip's mean."""
    time_mask_columns: int = 0
    """Widest mask in columns."""

    def __post_init__(self) -> None:
        for name in ("frequency_warp", "frequency_shift", "time_warp", "equalizer", "noise"):
            value = getattr(self, name)
            if not 0.0 <= value <= 100.0:
                raise ConfigError(f"{name} must be from 0 to 100, not {value}")
        for name in ("frequency_masks", "frequency_mask_bands", "time_masks", "time_mask_columns"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, not {getattr(self, name)}")

    @property
    def active(self) -> bool:
        """Whether anything is done at all, so whether two epochs see different images."""
        return self != Augmentation()


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Return `images` `[batch, 1, n_mels, columns]` altered as `settings` says."""
    s = settings
    if s.time_warp:
        images = warp_time(images, s.time_warp, generator)
    if s.frequency_warp or s.frequency_shift:
        images = warp_frequency(images, s.frequency_warp, s.frequency_shift, generator)
    if s.equalizer:
        images = equalize(images, s.equalizer, generator)
    for _ in range(s.frequency_masks):
        images = mask_frequency(images, s.frequency_mask_bands, generator)
    for _ in range(s.time_masks):
        images = mask_time(images, s.time_mask_columns, generator)
    if s.noise:  # last, so that a teacher can hear all but this
        images = add_noise_floor(images, s.noise, generator)
    return images


def _normal(images: Tensor, *shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype)


def _uniform(images: Tensor, *shape: int, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=images.device, dtype=images.dtype)


def _real(images: Tensor) -> Tensor:
    """Return where columns are not padding, `[batch, 1, 1, columns]`."""
    return images.amax(dim=2, keepdim=True) > 0


def _smooth_curve(images: Tensor, knots: int, generator: torch.Generator) -> Tensor:
    """Return a random curve over the bands `[batch, 1, n_mels, 1]` with standard deviation 1 at its knots."""
    points = _normal(images, len(images), 1, knots, generator=generator)
    curve = torch.nn.functional.interpolate(points, size=images.shape[2], mode="linear", align_corners=True)
    return curve.unsqueeze(-1)


def warp_frequency(images: Tensor, warp: float, shift: float, generator: torch.Generator) -> Tensor:
    """Stretch and move the Mel axis at random: band `b` is read at ``b * exp(warp * N) + shift * N``.

    Between bands it is interpolated linearly; beyond the ends the last band is repeated.
    """
    batch, _, bands, columns = images.shape
    stretch = (warp * _normal(images, batch, 1, generator=generator)).exp()
    offset = shift * _normal(images, batch, 1, generator=generator)
    position = torch.arange(bands, device=images.device, dtype=images.dtype) * stretch + offset
    position = position.clamp(0, bands - 1)
    low = position.floor().clamp(max=bands - 2)
    share = (position - low)[:, None, :, None]
    index = low.long()[:, None, :, None].expand(-1, -1, -1, columns)
    return images.gather(2, index).lerp(images.gather(2, index + 1), share)


def warp_time(images: Tensor, warp: float, generator: torch.Generator) -> Tensor:
    """Stretch the time axis at random; what is beyond the clip's end is padding."""
    batch, _, bands, columns = images.shape
    stretch = (warp * _normal(images, batch, 1, generator=generator)).exp()
    position = torch.arange(columns, device=images.device, dtype=images.dtype) * stretch
    inside = position <= columns - 1
    low = position.floor().clamp(0, columns - 2)
    share = (position - low).clamp(0, 1)[:, None, None, :]
    index = low.long()[:, None, None, :].expand(-1, -1, bands, -1)
    warped = images.gather(3, index).lerp(images.gather(3, index + 1), share)
    return warped * inside[:, None, None, :]


def equalize(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Add a smooth random curve over the bands to what is above the floor."""
    curve = strength * _smooth_curve(images, EQUALIZER_KNOTS, generator)
    return torch.where(images > 0, (images + curve).clamp(min=AUDIBLE), images)


def add_noise_floor(images: Tensor, highest: float, generator: torch.Generator) -> Tensor:
    """Raise what is below a random, slightly tilted, grainy floor to it, in half of the clips."""
    batch = len(images)
    level = highest * _uniform(images, batch, 1, 1, 1, generator=generator)
    chosen = _uniform(images, batch, 1, 1, 1, generator=generator) < 0.5
    tilt = NOISE_TILT * _smooth_curve(images, NOISE_KNOTS, generator)
    grain = NOISE_GRAIN * _normal(images, *images.shape, generator=generator)
    return torch.where(chosen & _real(images), torch.maximum(images, level + tilt + grain), images)


def mask_frequency(images: Tensor, widest: int, generator: torch.Generator) -> Tensor:
    """Replace a random stretch of bands, up to `widest`, by the mean of the clip's columns that are not padding."""
    batch, _, bands, _ = images.shape
    width = (_uniform(images, batch, 1, 1, 1, generator=generator) * (widest + 1)).floor()
    start = (_uniform(images, batch, 1, 1, 1, generator=generator) * (bands - width)).floor()
    band = torch.arange(bands, device=images.device)[:, None]
    masked = (band >= start) & (band < start + width)
    real = _real(images)
    return torch.where(masked & real, _mean(images, real), images)


def mask_time(images: Tensor, widest: int, generator: torch.Generator) -> Tensor:
    """Replace a random stretch of a clip's columns, up to `widest`, by the mean of those that are not padding."""
    batch, _, _, columns = images.shape
    real = _real(images)
    count = real.sum(dim=3, keepdim=True)
    width = (_uniform(images, batch, 1, 1, 1, generator=generator) * (widest + 1)).floor()
    start = (_uniform(images, batch, 1, 1, 1, generator=generator) * (count - width).clamp(min=0)).floor()
    column = torch.arange(columns, device=images.device)
    return torch.where((column >= start) & (column < start + width) & real, _mean(images, real), images)


def _mean(images: Tensor, real: Tensor) -> Tensor:
    """Return the mean of the columns that are `real` `[batch, 1, 1, columns]`, as `[batch, 1, 1, 1]`."""
    values = (real.sum(dim=3, keepdim=True) * images.shape[2]).clamp(min=1)
    return images.sum(dim=(2, 3), keepdim=True) / values
