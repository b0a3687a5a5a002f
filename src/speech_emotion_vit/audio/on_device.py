"""Tensors resampled where they lie, by torchaudio, if it is installed and fits the torch that is.

torchaudio ends with 2.11, which imports beside torch 2.11 only: whoever has another torch gets soxr, as for all else.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

_PHASES = 1_000  # of a kernel at most: 44.1 to 16 kHz has 160, but 44,101 Hz would have 16,000 and take gigabytes
# What torchaudio's documentation gives for the quality of librosa's kaiser_best; its own defaults let 7 kHz leak.
_WIDTH = 64  # zero crossings on each side of the kernel
_ROLLOFF = 0.9475937167399596  # of the lower Nyquist frequency
_BETA = 14.769656459379492


@functools.cache
def _torchaudio() -> Any:
    """Return torchaudio's transforms, None where they cannot be imported."""
    try:
        return importlib.import_module("torchaudio.transforms")
    except Exception:  # made for another torch, it ends in any: a symbol that is missing, say
        return None


@functools.lru_cache(maxsize=16)
def _resampler(rate: int, target_rate: int, device: torch.device) -> Any:
    """Return what resamples on `device`; making its kernel takes forty times longer than using it."""
    return (
        _torchaudio()
        .Resample(
            rate,
            target_rate,
            lowpass_filter_width=_WIDTH,
            rolloff=_ROLLOFF,
            resampling_method="sinc_interp_kaiser",
            beta=_BETA,
        )
        .to(device)
    )


class OnDevice:
    """A resampler of one tensor, with the calls of soxr's stream: it hands out what it has made at once.

    Args:
        samples: the tensor, `[samples]` or channels and samples in either order.
        channel: the number of the one to hear, None for the mean.
        rate: Hz of the tensor.
        target_rate: Hz of what goes out.
    """

    def __init__(self, samples: torch.Tensor, channel: int | None, rate: int, target_rate: int) -> None:
        self._rate, self._target_rate = rate, target_rate
        self._pushed = self._given = 0
        # The kernel's reach: what comes before a value that is refused must not have heard it.
        self._held = math.ceil(_WIDTH / _ROLLOFF * max(1.0, target_rate / rate)) + 1
        mono = _mono(samples.detach(), channel)
        resample = _resampler(rate, target_rate, mono.device)
        self._samples: npt.NDArray[np.float32] = resample(mono).to("cpu").numpy()

    def resample_chunk(self, chunk: npt.NDArray[np.float32], last: bool = False) -> npt.NDArray[np.float32]:
        """Return what a further chunk `[samples]` of the tensor makes known at the other rate."""
        self._pushed += len(chunk)
        end = len(self._samples) if last else self._pushed * self._target_rate // self._rate - self._held
        start, self._given = self._given, max(self._given, end)
        return self._samples[start : self._given]


def on_device(source: object, channel: int | None, rate: int, target_rate: int) -> OnDevice | None:
    """Return a resampler for `source`, None where soxr does it: no tensor, an odd rate, or no torchaudio that fits."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(source, torch.Tensor) or rate == target_rate:
        return None
    if target_rate // math.gcd(rate, target_rate) > _PHASES or _torchaudio() is None:
        return None
    return OnDevice(source, channel, rate, target_rate)


def _mono(samples: torch.Tensor, channel: int | None) -> torch.Tensor:
    """Return a tensor's samples `[samples]` in float32, of one channel or the mean of all."""
    torch = sys.modules["torch"]
    scale = 1.0 if samples.is_floating_point() else 2.0 ** (1 - torch.iinfo(samples.dtype).bits)
    offset = -1.0 if samples.dtype == torch.uint8 else 0.0
    values = samples.squeeze() if samples.ndim > 2 else samples
    if values.ndim == 2:
        channels = values.T if values.shape[0] > values.shape[1] else values  # as `inputs.as_frames` has it
        values = channels[channel] if channel is not None else channels
    values = values.float()
    if values.ndim == 2:
        values = values.mean(dim=0)
    return values * scale + offset
