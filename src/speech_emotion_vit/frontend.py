"""The log-Mel front-end: waveform to image, in plain torch, on the device of its input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import FrontendConfig, Interpolation, MelNorm, MelScale
from .errors import AudioError

# Below this power a window counts as digital silence: sixty orders under full scale would still be above it,
# yet it keeps the division by the loudest value finite in float32.
_SILENCE_POWER = 1e-20


def hz_to_mel(frequency: Tensor, scale: MelScale) -> Tensor:
    """Return Mel values of `frequency` in Hz.

    Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz at 3 Mel per 200 Hz, then 27 Mel per factor 6.4.
    HTK's: ``2595 log10(1 + f / 700)``.
    """
    if scale == "htk":
        return 2595.0 * torch.log10(1.0 + frequency / 700.0)
    logarithmic = 15.0 + torch.log(frequency.clamp(min=1e-9) / 1000.0) * (27.0 / math.log(6.4))
    return torch.where(frequency < 1000.0, frequency * 3.0 / 200.0, logarithmic)


def mel_to_hz(mel: Tensor, scale: MelScale) -> Tensor:
    """Return the frequency in Hz of Mel values: the inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return torch.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * torch.exp((mel - 15.0) * (math.log(6.4) / 27.0)))


def mel_filterbank(
    sampling_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float, scale: MelScale, norm: MelNorm
) -> Tensor:
    """Return triangular filters `[n_fft // 2 + 1, n_mels]` in float64 for a power spectrum."""
    low, high = hz_to_mel(torch.tensor([f_min, f_max], dtype=torch.float64), scale)
    steps = torch.linspace(0.0, 1.0, n_mels + 2, dtype=torch.float64)
    edges = mel_to_hz(low + (high - low) * steps, scale)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * (sampling_rate / n_fft)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0.0)
    if norm == "slaney":
        filters = filters * (2.0 / (edges[2:] - edges[:-2]))
    return filters


def interpolation_matrix(n_frames: int, columns: int, kind: Interpolation) -> Tensor:
    """Return weights `[n_frames, columns]` in float64 that take frames to columns; every column sums to 1.

    Pixel centres are aligned as in image resizing (``align_corners=False``). ``linear`` weighs the two nearest
    frames; ``antialias`` widens that triangle by the reduction factor.
    """
    ratio = n_frames / columns
    reach = ratio if kind == "antialias" else 1.0
    centre = (torch.arange(columns, dtype=torch.float64) + 0.5) * ratio
    frames = torch.arange(n_frames, dtype=torch.float64)[:, None] + 0.5
    weights = (1.0 - (frames - centre).abs() / reach).clamp(min=0.0)
    return weights / weights.sum(dim=0, keepdim=True)


class LogMel(nn.Module):
    """Turn waveforms into log-Mel images in 0..1.

    Power spectrum of centred frames, Mel bands, decibels below the loudest value of the window, floored at
    ``top_db``, mapped to 0..1, and interpolated to the columns of the image. Silence and padding are exactly 0,
    and a gain changes nothing. Frames that would see only padding are not computed.

    Args:
        config: the values; the paper's by default.
    """

    window: Tensor
    filterbank: Tensor
    interpolation: Tensor

    def __init__(self, config: FrontendConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or FrontendConfig()
        make_window = torch.hamming_window if c.window == "hamming" else torch.hann_window
        window = make_window(c.win_length, periodic=True, dtype=torch.float64)
        filterbank = mel_filterbank(c.sampling_rate, c.n_fft, c.n_mels, c.f_min, c.f_max, c.mel_scale, c.mel_norm)
        interpolation = interpolation_matrix(c.n_frames, c.columns, c.interpolation)
        # Derived from the config, so not part of any checkpoint.
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filterbank", filterbank.float(), persistent=False)
        self.register_buffer("interpolation", interpolation.float(), persistent=False)

    def mel_power(self, waveform: Tensor) -> Tensor:
        """Return Mel powers `[batch, frames, n_mels]` of `waveform` `[batch, samples]`.

        Only frames that touch the samples given are computed: at most ``config.n_frames``.
        """
        c = self.config
        half = c.win_length // 2
        n_frames = min(c.n_frames, -(-(waveform.shape[1] + half) // c.hop_length))
        needed = (n_frames - 1) * c.hop_length + c.win_length
        padded = nn.functional.pad(waveform, (half, max(0, needed - half - waveform.shape[1])))
        frames = padded.unfold(1, c.win_length, c.hop_length)[:, :n_frames]
        spectrum = torch.fft.rfft(frames * self.window, n=c.n_fft)
        mel_power: Tensor = (spectrum.real.square() + spectrum.imag.square()) @ self.filterbank
        return mel_power

    def forward(self, waveform: Tensor) -> Tensor:
        """Return images `[batch, 1, n_mels, columns]` of `waveform` `[batch, samples]`, float32 at ``sampling_rate``.

        Shorter than a window is zero-padded at the end.

        Raises:
            AudioError: the shape is wrong, or there are more samples than a window holds.
        """
        if waveform.ndim != 2 or waveform.shape[1] == 0:
            raise AudioError(f"the front-end takes [batch, samples] with samples > 0, not {list(waveform.shape)}")
        if waveform.shape[1] > self.config.window_samples:
            raise AudioError(
                f"{waveform.shape[1]} samples are more than one window of {self.config.window_samples}: "
                "cut the waveform into windows first"
            )
        return self.image(self.mel_power(waveform.float()))

    def image(self, mel_power: Tensor) -> Tensor:
        """Return images `[batch, 1, n_mels, columns]` of Mel powers `[batch, frames, n_mels]` of one window each."""
        loudest = mel_power.amax(dim=(1, 2), keepdim=True).clamp(min=_SILENCE_POWER)
        floor = 10.0 ** (-self.config.top_db / 10.0)
        level = (mel_power / loudest).clamp(min=floor).log10() * (10.0 / self.config.top_db) + 1.0
        # The floor's logarithm is not exact in float32; what is at the floor is exactly 0.
        level = torch.where(mel_power > loudest * floor, level.clamp(0.0, 1.0), torch.zeros_like(level))
        return (level.transpose(1, 2) @ self.interpolation[: level.shape[1]]).unsqueeze(1)
