"""Is anybody speaking, and when: a small network of its own in plain numpy, heard before any model of emotion.

It reads a log-Mel spectrogram relative to the loudest moment within a second, so the level of a recording means
nothing: a voice at a ten-thousandth of its level is found, and noise at full scale is not taken for one. What counts as
speech is everything that people say, whisper, scream, sob or laugh out. ``tools/train_speech_detector.py`` makes the
weights.

Whatever lies within a moment of speech stays, so a pause is shortened to an eighth of a second, and audio before,
between and behind changes little.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import soxr

from ..errors import WeightsError

Samples = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
T = TypeVar("T", int, npt.NDArray[np.int64])

WEIGHTS_FILE = Path(__file__).with_name("speech.safetensors")
WEIGHTS_SHA256 = "d706cd136d80bdde6e8c5e5abb9e4edc16fcabdc18499ff7e7aaad5c46d87165"

RATE = 16_000  # Hz, of what the detector hears
STEP = 512  # samples per output, 32 ms
FRAME = 512  # samples, of a Hann window
HOP = STEP // 2  # samples between frames: two per output
BANDS = 48
F_MIN, F_MAX = 60.0, 7600.0  # Hz; hum of the mains and what a telephone cuts off tell little
EMPHASIS = 0.95  # of the first-order filter that lifts a voice's upper bands to the level of its lower ones
DECADES = 6.0  # of power below the loudest moment that are seen
LOUDEST_REACH = 64  # frames to either side, 1 s, among which that moment is looked for
SILENCE = -18.0  # log10 of a Mel power that only digital silence is below
DILATIONS = (1, 2, 4, 8)  # of the blocks, in outputs: half a second to either side is seen
CONTEXT = sum(DILATIONS) + 1  # outputs to either side that an output depends on, the stem's included

THRESHOLD = 0.45  # of the probability, to be sure
LEAST = 8  # outputs above it, 0.26 s, ...
NEAR = 16  # ... among those so near to either side, 0.5 s, without which no output counts: a blip is nobody
THRESHOLD_BESIDE = 0.15  # of the probability, where ...
BESIDE = 32  # ... within so many outputs, 1 s, somebody speaks for sure
MARGIN = 2  # outputs to either side of speech that stay with it, 64 ms: more of a noise changes answers
PAUSE = 32  # outputs, 1 s: a pause of twice that, or of so many at an end, tells how loud the background is
QUIET = 4.0  # times the power of the quietest moment of a pause, 6 dB: what is fainter is background ...
BRIDGE = 8  # ... where the next louder output is further away, 0.26 s: it does not stay with the speech beside it
LEAST_POWER = 1e-12  # -120 dB below full scale; less is digital silence, with rounding
# What is kept depends on these and the weights.
DECISION = (THRESHOLD, LEAST, NEAR, THRESHOLD_BESIDE, BESIDE, MARGIN, PAUSE, QUIET, BRIDGE, LEAST_POWER)

_ONE_CORE = 1 << 17  # multiply-accumulates of a product, half of what OpenBLAS divides among threads
_AT_ONCE = 512  # frames, 8 s, on their way from samples to probabilities
_PIECE = 1280  # outputs, 41 s, that are looked at together in a long recording
_AROUND = 224  # outputs to either side that are looked at with them, for all of the above depends on less


class Weights(NamedTuple):
    """The network, laid out for matrix products; every normalisation is folded into the weights before it."""

    stem1: Samples
    """`[3 * 5, channels]`: moments x bands."""
    stem1_bias: Samples
    stem2: Samples
    """`[4 * 3 * channels, channels]`: moments x bands x channels."""
    stem2_bias: Samples
    project: Samples
    """`[bands * channels, width]`."""
    project_bias: Samples
    blocks: Samples
    """`[blocks, 3 * width, width]`: moments x width."""
    blocks_bias: Samples
    """`[blocks, width]`."""
    head: Samples
    """`[width]`."""
    head_bias: Samples
    """`[1]`."""


class Speech(NamedTuple):
    """Where somebody speaks in a waveform, by outputs of 32 ms."""

    spoken: Flags
    """`[outputs]`: somebody speaks."""
    kept: Flags
    """`[outputs]`: somebody speaks then, or just before or behind."""

    @property
    def seconds(self) -> float:
        """How long somebody speaks."""
        return float(self.spoken.sum()) * STEP / RATE

    def bounds(self, samples: int, rate: int) -> tuple[int, int]:
        """Return where the first of what is kept begins and the last ends, of so many samples at `rate` Hz."""
        kept = np.flatnonzero(self.kept)
        return _place(int(kept[0]), rate), min(samples, _place(int(kept[-1]) + 1, rate))


def speech_probability(waveform: Samples) -> Samples:
    """Return the probability that somebody speaks, `[ceil(samples / 512)]`, of a waveform `[samples]` at 16 kHz.

    Raises:
        WeightsError: the detector's file is missing or damaged.
    """
    image = np.pad(spectrogram(waveform), ((2 * CONTEXT, 2 * CONTEXT), (0, 0)))  # silence around it
    ends = range(0, len(image) - 4 * CONTEXT, _AT_ONCE)
    parts = [_network(image[end : end + _AT_ONCE + 4 * CONTEXT]) for end in ends]  # few at a time stay in the cache
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _network(image: Samples) -> Samples:
    """Return the probability `[outputs]` of all moments of a spectrogram that have their context in it."""
    w = load_weights()
    hidden = _convolve(image[:, :, None], w.stem1, 3, 5, 1) + w.stem1_bias
    hidden = _convolve(_relu(hidden), w.stem2, 4, 3, 2) + w.stem2_bias
    hidden = _relu(_product(_relu(hidden).reshape(len(hidden), -1), w.project) + w.project_bias)
    for dilation, weight, bias in zip(DILATIONS, w.blocks, w.blocks_bias, strict=True):
        inner = hidden[dilation:-dilation]
        moments = np.concatenate((hidden[: -2 * dilation], inner, hidden[2 * dilation :]), axis=1)
        hidden = inner + _relu(_product(moments, weight) + bias)
    return np.asarray(1.0 / (1.0 + np.exp(-(hidden @ w.head + w.head_bias))), np.float32)


def spectrogram(waveform: Samples) -> Samples:
    """Return decades of Mel power above six below the loudest moment near, in thirds, `[2 * outputs, 48]`.

    Zero is silence, 2 the loudest. A constant offset leaves no trace: no band reads the two bins it leaks into.
    """
    outputs = -(-len(waveform) // STEP)
    lead = (FRAME - HOP) // 2
    padded = np.zeros(outputs * STEP + FRAME - HOP, np.float32)
    padded[lead : lead + len(waveform)] = waveform
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    level = np.empty((len(frames), BANDS), np.float32)
    for start in range(0, len(frames), _AT_ONCE):
        spectrum = np.fft.rfft(frames[start : start + _AT_ONCE] * analysis_window())
        power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32)
        level[start : start + _AT_ONCE] = np.log10(_product(power, filterbank()) + np.float32(1e-25))
    loudest = _running_max(level.max(axis=1, initial=-25.0), LOUDEST_REACH)
    image = np.maximum(level - loudest[:, None] + np.float32(DECADES), np.float32(0)) / np.float32(3)
    image[loudest < SILENCE] = 0
    return np.asarray(image, np.float32)


@np.errstate(all="ignore")  # what the caller has set may make an exception of an underflow
def find_speech(waveform: Samples, rate: int = RATE) -> Speech:
    """Return where somebody speaks in `waveform` `[samples]` at `rate` Hz."""
    if not waveform.any():
        outputs = -(-len(waveform) * RATE // (rate * STEP))
        return Speech(np.zeros(outputs, bool), np.zeros(outputs, bool))
    return decide(*measure(waveform, rate))


def measure(waveform: Samples, rate: int = RATE) -> tuple[Samples, Samples]:
    """Return what `decide` needs to know of `waveform` `[samples]` at `rate` Hz: probability and power `[outputs]`."""
    waveform = waveform - waveform.mean()  # else an offset is a click where it begins
    if rate != RATE:
        waveform = soxr.resample(waveform, rate, RATE)
    power = np.pad(waveform, (0, -len(waveform) % STEP)).reshape(-1, STEP).var(axis=1)
    return speech_probability(waveform), power * (power > LEAST_POWER)


def keep_speech(waveform: Samples, rate: int = RATE) -> tuple[Samples, float]:
    """Return the parts of `waveform` `[samples]` with speech, in a row, and how many seconds of it are speech itself.

    Where nobody speaks there is nothing of either.
    """
    kept = np.concatenate(list(spoken_blocks([waveform], rate)))
    return np.ascontiguousarray(kept[:, 0]), float(kept[:, 1].sum()) / rate


def spoken_blocks(blocks: Iterable[Samples], rate: int = RATE) -> Iterator[Samples]:
    """Yield the parts with speech of a flow of blocks `[samples]`, as `[samples, 2]`.

    Beside a sample stands 1 where somebody speaks, 0 in what is kept around that. The parts are the same however the
    flow is cut into blocks; no more than 56 s of it and a block are held.
    """
    held: list[Samples] = []
    length = 0  # samples in it
    first = 0  # output it begins with
    following = 0  # output that is to be yielded next
    for block in blocks:
        held.append(block)
        length += len(block)
        while length >= _place(following + _PIECE + _AROUND, rate) - _place(first, rate):
            flow = np.concatenate(held)
            piece = flow[: _place(following + _PIECE + _AROUND, rate) - _place(first, rate)]
            yield _marked(piece, rate, first, following - first, following + _PIECE - first)
            following += _PIECE
            spent = following - _AROUND
            held = [flow[_place(spent, rate) - _place(first, rate) :].copy()]
            length, first = len(held[0]), spent
    if length:
        yield _marked(np.concatenate(held), rate, first, following - first, None)


@lru_cache(maxsize=1)
def load_weights() -> Weights:
    """Read the detector's weights, once.

    Raises:
        WeightsError: the file is missing or not the one that came with the package.
    """
    from safetensors.numpy import load

    try:
        content = WEIGHTS_FILE.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{WEIGHTS_FILE}: cannot be read ({error.strerror}): reinstall speech-emotion-vit"
        ) from error
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise WeightsError(f"{WEIGHTS_FILE}: damaged, its SHA-256 is another: reinstall speech-emotion-vit")
    return Weights(**{name: value.astype(np.float32) for name, value in load(content).items()})


def _marked(piece: Samples, rate: int, first: int, low: int, high: int | None) -> Samples:
    """Return what is kept of the outputs from `low` to `high` of a piece that begins with output `first`."""
    found = find_speech(piece, rate)
    borders = np.minimum(_place(first + np.arange(len(found.kept) + 1), rate) - _place(first, rate), len(piece))
    borders[-1:] = len(piece)
    counts = np.diff(borders)[low:high]
    samples = piece[borders[low] :][: counts.sum()]
    kept = np.repeat(found.kept[low:high], counts)
    spoken = np.repeat(found.spoken[low:high], counts)
    return np.stack((samples[kept], spoken[kept].astype(np.float32)), axis=1)


def _place(output: T, rate: int) -> T:
    """Return the sample at `rate` Hz with which an output begins."""
    return output * STEP * rate // RATE


def decide(probability: Samples, power: Samples) -> Speech:
    """Return what counts as speech, and what stays with it, from probability and power `[outputs]`.

    The probability falls slowly at the end of speech. Beside a long pause the background therefore decides where the
    speech ends: otherwise a moment of the noise behind a voice would be heard with it and change the answer.
    """
    likely = probability > THRESHOLD
    least = min(LEAST, -(-len(likely) // 2))  # half of what is shorter than half a second
    sure = likely & (_count(likely, NEAR) >= least)
    spoken = (probability > THRESHOLD_BESIDE) & _near(sure, BESIDE)
    kept = _near(spoken, MARGIN)
    pause = _near(~_near(kept, PAUSE), PAUSE)
    background = -_running_max(np.where(pause, -power, -np.inf), PAUSE)
    loud = kept & ~(_near(pause, PAUSE) & (power < QUIET * background))
    kept &= ~_near(~_near(loud, BRIDGE), BRIDGE)
    return Speech(spoken & kept, kept)


def _near(flags: Flags, reach: int) -> Flags:
    """Return whether a flag is set up to `reach` places to either side."""
    return _count(flags, reach) > 0


def _count(flags: Flags, reach: int) -> npt.NDArray[np.int64]:
    """Return how many flags are set among those up to `reach` places to either side."""
    sums = np.concatenate((np.zeros(reach + 1, np.int64), np.cumsum(flags), np.full(reach, flags.sum())))
    return np.asarray(sums[2 * reach + 1 :] - sums[: len(flags)])


def _convolve(image: Samples, weight: Samples, moments: int, bands: int, step: int) -> Samples:
    """Return a convolution of `[time, bands, channels]` with every second band, `[time, bands, channels]`.

    Only moments that lie whole inside the image are given, every `step`-th of them; beyond the bands is silence.
    """
    half = bands // 2
    padded = np.pad(image, ((0, 0), (half, half), (0, 0)))
    cut = np.lib.stride_tricks.sliding_window_view(padded, (moments, bands), axis=(0, 1))[::step, ::2]
    rows = np.ascontiguousarray(cut.transpose(0, 1, 3, 4, 2)).reshape(-1, len(weight))
    return np.asarray(_product(rows, weight).reshape(*cut.shape[:2], -1), np.float32)


def _product(rows: npt.NDArray[Any], weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `rows @ weight` in pieces that OpenBLAS computes on one core.

    Its other threads go on spinning for a while, and torch's wait for their cores: `predict` took twice as long.
    """
    step = max(1, _ONE_CORE // weight.size)
    return np.concatenate([rows[start : start + step] @ weight for start in range(0, max(1, len(rows)), step)])


def _relu(values: Samples) -> Samples:
    return np.maximum(values, 0, out=values)


def _running_max(values: Samples, reach: int) -> Samples:
    """Return the largest value among those up to `reach` places to either side."""
    padded = np.pad(values, reach, constant_values=-np.inf)
    width, size = 1, 2 * reach + 1
    while 2 * width <= size:  # the largest of 2, 4, 8 ... neighbours
        padded = np.maximum(padded[:-width], padded[width:])
        width *= 2
    return np.maximum(padded[: len(values)], padded[size - width :])


@lru_cache(maxsize=1)
def analysis_window() -> Samples:
    """Return a periodic Hann window, under which an offset leaks into two bins and no further."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)


@lru_cache(maxsize=1)
def filterbank() -> Samples:
    """Return triangular Mel filters `[bins, bands]` (HTK's scale), with the emphasis of upper bands in them."""
    lowest, highest = (2595.0 * math.log10(1.0 + frequency / 700.0) for frequency in (F_MIN, F_MAX))
    mel = np.linspace(lowest, highest, BANDS + 2)
    edges = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    bins = np.arange(FRAME // 2 + 1) * RATE / FRAME
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.minimum((bins[:, None] - low) / (centre - low), (high - bins[:, None]) / (high - centre)).clip(min=0.0)
    filters[:2] = 0.0  # where an offset is
    empty = ~filters.any(axis=0)  # bands that fall between two bins read the nearest
    filters[np.abs(bins[:, None] - centre).argmin(axis=0)[empty].clip(min=2), empty] = 1.0
    emphasis = np.abs(1.0 - EMPHASIS * np.exp(-2j * np.pi * centre / RATE)) ** 2
    return np.asarray(filters / filters.sum(axis=0) * emphasis, np.float32)
