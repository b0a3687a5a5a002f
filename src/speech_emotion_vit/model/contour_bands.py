"""What the statistics of contours look at in a log-Mel image, for the network and for its ONNX graph."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

CONTOUR_DECADES = 4.0  # of amplitude between 0 and 1 in the image: 80 dB, the default of `FrontendConfig.top_db`
CONTOUR_STEP = 0.02  # a rise or a peak of this size counts half
PEAK_SHARPNESS = 20.0  # of a peak over the rest, per 80 dB: what is 9 dB lower weighs a tenth

_OF = 128  # bands of the default front-end, which the numbers below are counts of


class ContourBands(NamedTuple):
    """First and last band, exclusive, of what is looked at apart, in an image of some height.

    In hertz that is what it is with the default front-end; with another one, the same parts of the image.
    """

    low: tuple[int, int]
    """Up to 1 kHz, where bands are evenly spaced: voicing and the first formant."""
    fundamental: tuple[int, int]
    """60 to 390 Hz, where the loudest band is a low harmonic of the voice, mostly the first."""
    formant: tuple[int, int]
    """250 to 1000 Hz, where it is near the first formant."""
    octaves: tuple[tuple[int, int], ...]
    """Up to 250, 500, 1000, 2000, 4000 and 8000 Hz."""


def contour_bands(height: int) -> ContourBands:
    """Return the bands of an image of `height` rows; each part has one at least."""

    def part(first: int, last: int) -> tuple[int, int]:
        start = first * height // _OF
        return start, max(start + 1, last * height // _OF)

    edges = (0, 10, 21, 42, 71, 100, _OF)
    return ContourBands(
        low=part(0, 42),
        fundamental=part(2, 16),
        formant=part(10, 42),
        octaves=tuple(part(first, last) for first, last in pairwise(edges)),
    )
