"""How loudness and brightness run through a clip: a few numbers that averages over moments do not hold."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import CONTOUR_DECADES, CONTOUR_STEP, STATISTICS_EPSILON


def contour_statistics(image: Tensor, columns: Tensor) -> Tensor:
    """Return statistics `[batch, 48]` of four contours of log-Mel images `[batch, 1, height, width]`.

    The contours are the amplitude of every column, relative to the clip's loudest; its logarithm; how much the
    spectrum changes from the column before (spectral flux); and its centre of gravity. Of each, twelve numbers: mean,
    standard deviation and skewness; slope and curvature, as mean products with the place in the clip, from -1 to 1,
    and its square; the mean prominence, the share and the mean height of peaks; and deviation and share of rises and
    of falls. None depends on the clip's level or on its length, and all are continuous, so that rounding stays
    rounding.

    Args:
        image: values in 0..1.
        columns: how many columns belong to each clip, at least 1, `[batch]`; all behind them are zero.
    """
    height, width = image.shape[2:]
    amplitudes = 10.0 ** (CONTOUR_DECADES * (image[:, 0] - 1.0))  # [batch, height, width]
    amplitude = amplitudes.square().sum(dim=1).sqrt()
    loudest = amplitude.amax(dim=1, keepdim=True)
    amplitude = amplitude / loudest
    level = 1.0 + (amplitude.square() + 10.0 ** (-2 * CONTOUR_DECADES)).log10() / (2 * CONTOUR_DECADES)
    flux = amplitudes.diff(dim=2, prepend=amplitudes[:, :, :1]).square().sum(dim=1).sqrt() / loudest
    band = torch.arange(height, device=image.device, dtype=image.dtype)[:, None] / height
    centre = (amplitudes * band).sum(dim=1) / amplitudes.sum(dim=1)
    contours = torch.stack((amplitude, level, flux, centre), dim=1)  # [batch, 4, width]

    position = torch.arange(width, device=image.device)
    count = columns[:, None, None].to(image.dtype)
    share = (position < count) / count
    place = (2.0 * position - (count - 1.0)) / (count - 1.0).clamp(min=1.0)  # from -1 to 1
    mean, deviation = _moments(contours, share)
    skewness = _mean(((contours - mean) / deviation) ** 3, share)
    slope = _mean(contours * place, share)
    curvature = _mean(contours * (place.square() - 1 / 3), share)

    share = (position[1:] < count) / (count - 1.0).clamp(min=1.0)
    change = contours.diff(dim=2)
    rise, fall = change.relu(), (-change).relu()
    steps = [_moments(each, share)[1] for each in (rise, fall)]
    steps += [_mean(_counted(each), share) for each in (rise, fall)]

    share = (position[2:] < count) / (count - 2.0).clamp(min=1.0)
    peak = torch.minimum(rise[:, :, :-1], fall[:, :, 1:])
    prominence = _mean(peak, share)
    height_of_peaks = _mean(peak * contours[:, :, 1:-1], share) / (prominence + 1e-3)
    peaks = [prominence, _mean(_counted(peak), share), height_of_peaks]
    return torch.cat((mean, deviation, skewness, slope, curvature, *peaks, *steps), dim=2).flatten(1)


def _mean(values: Tensor, share: Tensor) -> Tensor:
    return (values * share).sum(dim=2, keepdim=True)


def _moments(values: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    mean = _mean(values, share)
    return mean, (_mean((values - mean).square(), share) + STATISTICS_EPSILON).sqrt()


def _counted(steps: Tensor) -> Tensor:
    """Return how far each step counts as one, 0 to 1."""
    return steps / (steps + CONTOUR_STEP)
