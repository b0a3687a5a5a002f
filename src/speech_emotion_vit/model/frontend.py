"""The log-Mel front-end: waveform to image, in plain torch, on the device of its input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import AudioError
from .config import FrontendConfig
from .mel import FLOOR_LEVEL, SILENCE_POWER, analysis_window, interpolation_matrix, mel_filterbank

# Frames transformed at a time on a CPU: their spectra, 1 MB, stay in its cache.
_CPU_FRAMES = 256
_GPU_WINDOWS = 64  # windows transformed at a time elsewhere: 260 MB of spectra
# Bands multiplied at a time: a group of neighbours needs only its own bins, a quarter of them with the defaults.
_GROUP = 32


class LogMel(nn.Module):
    """Turn waveforms into log-Mel images in 0..1.

    Power spectrum of centred frames, Mel bands, decibels below the loudest value of the window, floored at
    ``top_db``, mapped to 0..1, and interpolated to the columns of the image.
    Silence and padding are exactly 0, and a gain changes nothing. Frames that would see only padding are not computed.
    Where the config names no columns, every frame is one.

    Args:
        config: the values; the paper's by default.
    """

    window: Tensor
    filterbank: Tensor
    interpolation: Tensor | None

    def __init__(self, config: FrontendConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or FrontendConfig()
        window = np.pad(analysis_window(c.window, c.win_length), (0, c.n_fft - c.win_length))
        filterbank = mel_filterbank(c.sampling_rate, c.n_fft, c.n_mels, c.f_min, c.f_max, c.mel_scale, c.mel_norm)
        interpolation = None
        if c.columns is not None:
            matrix = interpolation_matrix(c.n_frames, c.columns, c.interpolation)
            interpolation = torch.from_numpy(matrix.T.copy()).float()
        # Derived from the config, so not part of any checkpoint.
        self.register_buffer("window", torch.from_numpy(window).float(), persistent=False)
        self.register_buffer("filterbank", torch.from_numpy(filterbank.repeat(2, axis=0)).float(), persistent=False)
        self.register_buffer("interpolation", interpolation, persistent=False)
        self._groups = [
            (slice(2 * int(used[0]), 2 * int(used[-1]) + 2), slice(first, first + _GROUP))
            for first in range(0, c.n_mels, _GROUP)
            if len(used := filterbank[:, first : first + _GROUP].any(axis=1).nonzero()[0])
        ]

    def mel_power(self, waveform: Tensor) -> Tensor:
        """Return Mel powers `[batch, frames, n_mels]` of `waveform` `[batch, samples]`.

        Only `FrontendConfig.frames_of` the samples given are computed.
        """
        c = self.config
        batch, samples = waveform.shape
        half = c.win_length // 2
        n_frames = c.frames_of(samples)
        needed = (n_frames - 1) * c.hop_length + c.n_fft
        padded = nn.functional.pad(waveform, (half, max(0, needed - half - samples)))
        # Frames are cut as long as the transform and their second half is multiplied by zero: no copy to pad them.
        frames = padded.unfold(1, c.n_fft, c.hop_length)
        on_cpu = waveform.device.type == "cpu"
        windows, step = (1, _CPU_FRAMES) if on_cpu else (_GPU_WINDOWS, n_frames)
        # A group of very narrow bands may fall between two bins.
        mel_power = waveform.new_zeros(batch, n_frames, c.n_mels)
        for row in range(0, batch, windows):
            for start in range(0, n_frames, step):
                rows, span = slice(row, row + windows), slice(start, min(start + step, n_frames))
                spectrum = torch.view_as_real(torch.fft.rfft(frames[rows, span] * self.window))
                power = spectrum.flatten(-2).square_()  # real and imaginary parts; every filter stands there twice
                for bins, bands in self._groups:
                    mel_power[rows, span, bands] = power[..., bins] @ self.filterbank[bins, bands]
        return mel_power

    def forward(self, waveform: Tensor) -> Tensor:
        """Return images `[batch, 1, n_mels, columns]` of `waveform` `[batch, samples]`, float32 at ``sampling_rate``.

        Shorter than a window is zero-padded at the end. Without columns in the config the image is as wide as
        `waveform` is long, and zero behind the `frames` of a clip.

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
        return self.image(self.mel_power(waveform.float()), self.frames(waveform))

    def frames(self, waveform: Tensor) -> Tensor | None:
        """Return how many columns belong to each clip `[batch]`, None where the config names the columns.

        A clip ends with its last sample that is not 0: zeros behind it are padding, whoever put them there.
        """
        if self.config.columns is not None:
            return None
        place = torch.arange(1, waveform.shape[1] + 1, dtype=torch.int32, device=waveform.device)
        length = torch.where(waveform == 0, 0, place).amax(dim=1)
        return length // self.config.hop_length + 1

    def image(self, mel_power: Tensor, frames: Tensor | None = None) -> Tensor:
        """Return images `[batch, 1, n_mels, columns]` of Mel powers `[batch, frames, n_mels]` of one window each.

        `frames` `[batch]` is how many of them belong to the clip; None is all.
        """
        if frames is not None:
            inside = torch.arange(mel_power.shape[1], device=mel_power.device) < frames[:, None]
            mel_power = mel_power * inside[:, :, None]
        loudest = mel_power.amax(dim=(1, 2), keepdim=True).clamp(min=SILENCE_POWER)
        floor = 10.0 ** (-self.config.top_db / 10.0)
        level = (mel_power / loudest).clamp_(min=floor).log10_().mul_(10.0 / self.config.top_db).add_(1.0)
        level = nn.functional.threshold(level, FLOOR_LEVEL, 0.0, inplace=True)
        columns: Tensor = level if self.interpolation is None else self.interpolation[:, : level.shape[1]] @ level
        return columns.transpose(1, 2).unsqueeze(1)
