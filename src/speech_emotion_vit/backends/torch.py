"""The network in torch, on any device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, WeightsError, one_line, quoted
from ..model.config import ClassifierConfig, FrontendConfig
from ..model.frontend import LogMel
from ..model.mel import mel_edges
from ..model.rollout import rollout
from ..weights.checkpoint import load_network
from ..weights.resolve import ResolvedModel
from .base import Attention, Backend, Floats

if TYPE_CHECKING:
    from ..model.build import Network

_CPU_WINDOWS = 16  # on a CPU more at a time are no faster, for they leave its caches, and need more memory
_LONGEST_REASON = 120  # characters of what torch says
DTYPES = ("float32", "float16", "bfloat16")

if hasattr(os, "register_at_fork"):
    # GNU OpenMP waits for ever in a child that was forked after it had run threads; a single thread needs none of it.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class TorchBackend(Backend):
    """A checkpoint on a torch device.

    The network runs in the type of its weights, and the front-end in float32, whatever the caller has set in torch.

    Attributes:
        network: the `SpectrogramViT` or `FrameViT`, in evaluation mode.
        frontend: its `LogMel`.
        device: the `torch.device` of both.
        config: what the checkpoint says it is.
    """

    def __init__(
        self, network: Network, config: ClassifierConfig, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.config = config
        self.device = device
        with torch.inference_mode(False):
            self.network = network.to(device, dtype).eval().requires_grad_(False)
            self.frontend = LogMel(config.frontend).to(device)

    @classmethod
    def load(
        cls,
        resolved: ResolvedModel,
        device: str | int | torch.device | None = "auto",
        dtype: str | torch.dtype = "float32",
    ) -> TorchBackend:
        """Load a model that has been found.

        Raises:
            WeightsError: its file cannot be read, or is not what its configuration says.
            ConfigError: the device or the type does not exist.
        """
        chosen, kind = find_device(device), find_dtype(dtype)  # before anything is read
        return cls(*load_network(resolved, chosen), chosen, kind)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities `[batch, classes]` and embeddings `[batch, dim]` of a tensor `[batch, samples]`.

        Everything stays on the device of the backend, where `waveform` must be, and is float32.
        """
        with self._running():
            return self._classify(self.frontend(waveform), self.frontend.frames(waveform))

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """Run the network without the caller's autocast and gradients; say what the device cannot do."""
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                yield
        except RuntimeError as error:  # of torch: memory is short, say
            if isinstance(error, WeightsError):
                raise
            raise WeightsError(
                f"torch cannot run the network on {self.device} ({one_line(error)[:_LONGEST_REASON]}): pass fewer "
                "windows at once (batch_size), or device='cpu'"
            ) from error

    def _infer(self, windows: Floats) -> tuple[Floats, Floats]:
        step = _CPU_WINDOWS if self.device.type == "cpu" else len(windows)
        parts = [
            self.forward(torch.from_numpy(windows[first : first + step]).to(self.device))
            for first in range(0, len(windows), step)
        ]
        probabilities, embedding = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return probabilities, embedding

    def _infer_cut(self, samples: Floats, starts: Sequence[int], size: int) -> tuple[Floats, Floats]:
        # The Mel frames that windows share are computed once.
        with self._running():
            shared = self._shared_power(torch.from_numpy(samples).to(self.device), starts, size)
        if shared is None:
            return super()._infer_cut(samples, starts, size)
        with self._running():
            probabilities, embedding = self._classify(self.frontend.image(*shared), shared[1])
        return probabilities.cpu().numpy(), embedding.cpu().numpy()

    def _shared_power(self, samples: Tensor, starts: Sequence[int], size: int) -> tuple[Tensor, Tensor | None] | None:
        """Return what `LogMel.image` takes of the windows, None where sharing is not exact or does not pay.

        Windows that start a multiple of the frames' hop apart have the same frames where these lie inside the
        window. The few at its edges see zeros outside of it and are the window's own.
        """
        c = self.config.frontend
        hop, half = c.hop_length, c.win_length // 2
        lead = -(-half // hop)  # the first frame that lies inside
        inner = (size + half - c.win_length) // hop - lead + 1  # frames that do
        step = (c.window_samples + half - c.win_length) // hop - lead + 1  # the same for the longest piece
        offsets = [(start - starts[0]) // hop for start in starts]
        pieces = -(-(offsets[-1] + inner) // step)
        if inner < 1 or pieces >= len(starts) or any((start - starts[0]) % hop for start in starts):
            return None
        mel_power = self.frontend.mel_power
        samples = samples[starts[0] :]
        reach = (pieces - 1) * step * hop + c.window_samples
        whole = nn.functional.pad(samples, (0, max(0, reach - len(samples)))).unfold(0, c.window_samples, step * hop)
        shared = torch.cat([mel_power(piece[None])[0, lead : lead + step] for piece in whole[:pieces]])
        windows = torch.stack([samples[offset * hop : offset * hop + size] for offset in offsets])
        first = mel_power(windows[:, : (lead - 1) * hop - half + c.win_length])[:, :lead] if lead else None
        last = mel_power(windows[:, inner * hop :])[:, lead:]
        frames = c.frames_of(size) - lead - inner
        middle = torch.stack([shared[offset : offset + inner] for offset in offsets])
        power = torch.cat([part for part in (first, middle, last[:, :frames]) if part is not None], dim=1)
        return power, self.frontend.frames(windows)

    def _attention(self, window: Floats) -> Attention:
        c = self.config.frontend
        with self._running():
            waveform = torch.from_numpy(window)[None].to(self.device)
            image, frames = self.frontend(waveform), self.frontend.frames(waveform)
            probabilities, _ = self._classify(image, frames)
            heard = image if frames is None else image[..., : int(frames)]
            weights = rollout(self.network, heard.to(self._dtype))[0].float()
        return Attention(
            probabilities=probabilities[0].cpu().numpy(),
            weights=nn.functional.pad(weights, (0, image.shape[3] - len(weights))).cpu().numpy(),
            image=image[0, 0].cpu().numpy(),
            times=_column_times(c, image.shape[3]),
            frequencies=mel_edges(c.n_mels, c.f_min, c.f_max, c.mel_scale)[1:-1].astype(np.float32),
        )

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.head.parameters()).dtype

    def _classify(self, image: Tensor, frames: Tensor | None) -> tuple[Tensor, Tensor]:
        embedding = self.network.embed(image.to(self._dtype), frames)
        logits = self.network.head(embedding).float()
        return torch.softmax(logits / self.config.temperature, dim=-1), embedding.float()


def _column_times(c: FrontendConfig, columns: int) -> Floats:
    """Return the middle of every column of an image in seconds from the start of its window, `[columns]`."""
    places = np.arange(columns)
    if c.columns is None:
        return (places * (c.hop_length / c.sampling_rate)).astype(np.float32)
    return ((places + 0.5) * (c.window_seconds / c.columns)).astype(np.float32)


def find_device(device: str | int | torch.device | None) -> torch.device:
    """Return a device that works; ``auto`` and None are a GPU if there is one, a number is that GPU.

    Raises:
        ConfigError: it does not work here.
    """
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wanted = f"cuda:{device}" if type(device) is int else device.lower() if isinstance(device, str) else device
    reason = "it is no device of torch, such as 'cpu', 'cuda' or 'cuda:1'"
    with contextlib.suppress(RuntimeError, AssertionError, TypeError, ValueError, ImportError):  # it is not there
        chosen = torch.device(wanted)
        reason = "there is none here"
        if chosen.type == "cuda":
            reason = f"torch sees {torch.cuda.device_count()} CUDA devices here"
        torch.zeros(1, device=chosen).cpu()  # there and back: the device "meta" has no values to give
        return chosen
    raise ConfigError(f"device {quoted(wanted)} cannot be used ({reason}): pass 'auto' or 'cpu'")


def find_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """Return a floating-point type of torch: ``float32``, ``float16`` or ``bfloat16``.

    Raises:
        ConfigError: it is none of these.
    """
    for name in DTYPES:
        if dtype in (name, getattr(torch, name)):
            kind: torch.dtype = getattr(torch, name)
            return kind
    raise ConfigError(f"dtype must be {', '.join(map(repr, DTYPES[:-1]))} or {DTYPES[-1]!r}, not {quoted(dtype)}")
