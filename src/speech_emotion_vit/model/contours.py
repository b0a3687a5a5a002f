"""How loudness, brightness and pitch run through a clip: a few numbers that averages over moments do not hold."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import STATISTICS_EPSILON
from .contour_bands import CONTOUR_DECADES, CONTOUR_STEP, PEAK_SHARPNESS, contour_bands


def contours(image: Tensor) -> Tensor:
    """Return fourteen contours `[batch, width, 14]` of log-Mel images `[batch, 1, height, width]` with values in 0..1.

    Of every column: its amplitude, relative to the clip's loudest, and the level of that; how much the spectrum changes
    from the column before (spectral flux); the centre of gravity of the spectrum and its width around it; the centre
    of gravity below 1 kHz; where the loudest band is from 60 to 390 Hz, near the pitch, and from 250 to 1000 Hz, near
    the first formant; and the levels of six octaves. None depends on the clip's level.
    """
    image = image[:, 0]  # [batch, height, width]
    bands = contour_bands(image.shape[1])
    amplitudes = 10.0 ** (CONTOUR_DECADES * (image - 1.0))
    amplitude = amplitudes.square().sum(dim=1).sqrt()
    loudest = amplitude.amax(dim=1, keepdim=True)
    amplitude = amplitude / loudest
    flux = amplitudes.diff(dim=2, prepend=amplitudes[:, :, :1]).square().sum(dim=1).sqrt() / loudest
    centre, total = _centre(amplitudes)
    distance = _places(image) - centre[:, None]
    width = ((amplitudes * distance.square()).sum(dim=1) / total).sqrt()
    low, _ = _centre(amplitudes[:, slice(*bands.low)])
    peaks = [_centre((PEAK_SHARPNESS * image[:, slice(*part)]).exp())[0] for part in (bands.fundamental, bands.formant)]
    octaves = [amplitudes[:, slice(*part)].square().sum(dim=1).sqrt() / loudest for part in bands.octaves]
    found = [amplitude, _level(amplitude), flux, centre, width, low, *peaks]
    return torch.stack(found + [_level(octave) for octave in octaves], dim=2)


def contour_statistics(image: Tensor, columns: Tensor) -> Tensor:
    """Return statistics `[batch, 168]` of the `contours` of log-Mel images `[batch, 1, height, width]`.

    Twelve numbers of each contour, every number of all contours in a row: mean, standard deviation and skewness; slope
    and curvature, as mean products with the place in the clip, from -1 to 1, and its square; the mean prominence, the
    share and the mean height of peaks; and deviation and share of rises and of falls. None depends on the clip's level
    or on its length, and all are continuous, so that rounding stays rounding.

    Args:
        image: values in 0..1.
        columns: how many columns belong to each clip, at least 1, `[batch]`; all behind them are zero.
    """
    values = contours(image)  # [batch, width, 14]
    position = torch.arange(values.shape[1], device=image.device)[:, None]
    count = columns[:, None, None].to(image.dtype)
    share = (position < count) / count  # [batch, width, 1]
    place = (2.0 * position - (count - 1.0)) / (count - 1.0).clamp(min=1.0)  # from -1 to 1
    mean, deviation = _moments(values, share)
    skewness = _mean(((values - mean) / deviation) ** 3, share)
    slope = _mean(values * place, share)
    curvature = _mean(values * (place.square() - 1 / 3), share)

    share = (position[1:] < count) / (count - 1.0).clamp(min=1.0)
    change = values.diff(dim=1)
    rise, fall = change.relu(), (-change).relu()
    steps = [_moments(each, share)[1] for each in (rise, fall)]
    steps += [_mean(_counted(each), share) for each in (rise, fall)]

    share = (position[2:] < count) / (count - 2.0).clamp(min=1.0)
    peak = torch.minimum(rise[:, :-1], fall[:, 1:])
    prominence = _mean(peak, share)
    height_of_peaks = _mean(peak * values[:, 1:-1], share) / (prominence + 1e-3)
    peaks = [prominence, _mean(_counted(peak), share), height_of_peaks]
    return torch.cat((mean, deviation, skewness, slope, curvature, *peaks, *steps), dim=1).flatten(1)


def _mean(values: Tensor, share: Tensor) -> Tensor:
    # Not a product of matrices, which rounds differently in a batch: a third power magnifies that.
    return (values * share).sum(dim=1, keepdim=True)


def _moments(values: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    mean = _mean(values, share)
    return mean, (_mean((values - mean).square(), share) + STATISTICS_EPSILON).sqrt()


def _places(values: Tensor) -> Tensor:
    """Return where the rows of `[batch, height, width]` are, from 0 on, `[height, 1]`."""
    return torch.arange(values.shape[1], device=values.device, dtype=values.dtype)[:, None] / values.shape[1]


def _centre(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean place of rows by weights `[batch, height, width]`, and their sum, both `[batch, width]`."""
    total = weights.sum(dim=1)
    return (weights * _places(weights)).sum(dim=1) / total, total


def _level(amplitude: Tensor) -> Tensor:
    """Return amplitudes relative to the loudest as levels from 0 to 1."""
    level: Tensor = 1.0 + (amplitude.square() + 10.0 ** (-2 * CONTOUR_DECADES)).log10() / (2 * CONTOUR_DECADES)
    return level


def _counted(steps: Tensor) -> Tensor:
    """Return how far each step counts as one, 0 to 1."""
    return steps / (steps + CONTOUR_STEP)
