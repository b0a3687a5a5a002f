"""The lightweight API: audio in, emotion probabilities out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .audio import AudioInput, AudioReader, Samples, windows
from .checkpoint import load_checkpoint
from .errors import AudioError, ConfigError
from .frontend import LogMel
from .hub import resolve_model
from .prediction import Prediction


@dataclass
class _Clip:
    """One clip on its way through the model."""

    name: str
    duration: float = 0.0
    warnings: tuple[str, ...] = ()
    error: AudioError | None = None
    outputs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Probabilities `[classes]` and embedding `[dim]` of every window."""


class EmotionClassifier:
    """A trained student, ready to listen.

    Args:
        model: a name from the manifest (``speech-emotion-vit models list``), a Hugging Face Hub repository
            ``org/repo``, a folder with ``config.json`` and ``model.safetensors``, or a ``.safetensors`` file of this
            package. None is the bundled default, which needs no network.
        device: ``auto`` (CUDA where there is one, else the CPU) or any torch device.
        revision: branch, tag or commit of a Hub repository.
        cache_dir: where downloads are kept; the Hub client's cache by default.
        local_files_only: never use the network.

    Raises:
        WeightsError: the model cannot be found, fetched, verified or read.
        ConfigError: the device does not exist.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "auto",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.device = _device(device)
        resolved = resolve_model(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        network, self.config = load_checkpoint(resolved.weights, resolved.config)
        self.name = f"{resolved.name}@{resolved.revision}"
        self.network = network.to(self.device).eval().requires_grad_(False)
        self.frontend = LogMel(self.config.frontend).to(self.device)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> EmotionClassifier:
        """Do what the constructor does, under the name people know from other libraries."""
        return cls(model, device=device, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of `Prediction.probabilities`."""
        return self.config.labels

    def predict(self, audio: AudioInput, *, sampling_rate: int | None = None) -> Prediction:
        """Return the emotion probabilities of one piece of audio.

        Up to 4 s are seen as one window, zero-padded at the end. Longer audio is cut into windows of 4 s every 2 s,
        the last aligned to the end, and their probabilities are averaged.

        Args:
            audio: a path, encoded bytes, a binary file object, or a numpy array or torch tensor on any device,
                `[samples]` or `[channels, samples]`, float or integer PCM. Channels are averaged.
            sampling_rate: Hz, 4000 to 384000: needed for arrays and tensors, refused for the rest.

        Raises:
            AudioError: the audio cannot be read or makes no sense.
        """
        return self.predict_batch([audio], sampling_rate=sampling_rate)[0]

    @overload
    def predict_batch(
        self,
        audios: Iterable[AudioInput],
        *,
        sampling_rate: int | None = None,
        batch_size: int = 64,
        errors: Literal["raise"] = "raise",
    ) -> list[Prediction]: ...

    @overload
    def predict_batch(
        self,
        audios: Iterable[AudioInput],
        *,
        sampling_rate: int | None = None,
        batch_size: int = 64,
        errors: Literal["return"],
    ) -> list[Prediction | AudioError]: ...

    def predict_batch(
        self,
        audios: Iterable[AudioInput],
        *,
        sampling_rate: int | None = None,
        batch_size: int = 64,
        errors: Literal["raise", "return"] = "raise",
    ) -> Sequence[Prediction | AudioError]:
        """Return the predictions of many pieces of audio, in order: the numbers `predict` gives one by one.

        Args:
            audios: what `predict` takes, any number of it.
            sampling_rate: Hz of the arrays and tensors among them.
            batch_size: windows that go through the network at once.
            errors: ``raise`` the first `AudioError`, or ``return`` it in the place of the prediction and go on.

        Raises:
            AudioError: a piece cannot be read, with ``errors="raise"``.
            ConfigError: `batch_size` is less than 1, or `errors` is neither of the two.
        """
        return list(self.iter_predictions(audios, sampling_rate=sampling_rate, batch_size=batch_size, errors=errors))

    def iter_predictions(
        self,
        audios: Iterable[AudioInput],
        *,
        sampling_rate: int | None = None,
        batch_size: int = 64,
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Prediction | AudioError]:
        """Yield what `predict_batch` returns as it becomes known; only one batch of windows is in memory."""
        if errors not in ("raise", "return"):
            raise ConfigError(f"errors must be 'raise' or 'return', not {errors!r}")
        for clip in self._run(audios, sampling_rate, batch_size):
            if clip.error is not None:
                if errors == "raise":
                    raise clip.error
                yield clip.error
                continue
            mean = torch.stack([probabilities for probabilities, _ in clip.outputs]).mean(dim=0)
            yield Prediction(
                probabilities=dict(zip(self.labels, mean.tolist(), strict=True)),
                duration=clip.duration,
                model=self.name,
                warnings=clip.warnings,
            )

    def embed(self, audio: AudioInput, *, sampling_rate: int | None = None) -> npt.NDArray[np.float32]:
        """Return the CLS feature `[dim]`, float32, the mean over the windows of audio longer than one.

        Args:
            audio: as in `predict`.
            sampling_rate: as in `predict`.

        Raises:
            AudioError: the audio cannot be read or makes no sense.
        """
        (clip,) = self._run([audio], sampling_rate, batch_size=64)
        if clip.error is not None:
            raise clip.error
        embedding: npt.NDArray[np.float32] = (
            torch.stack([embedding for _, embedding in clip.outputs]).mean(dim=0).numpy()
        )
        return embedding

    def _run(self, audios: Iterable[AudioInput], sampling_rate: int | None, batch_size: int) -> Iterator[_Clip]:
        """Yield every clip once all its windows have been through the network, in order."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        pending: list[tuple[_Clip, Samples]] = []  # windows not yet seen by the network
        waiting: list[_Clip] = []  # clips read to their end, not yet yielded
        for audio in audios:
            clip = _Clip(name="")
            try:
                reader = AudioReader(audio, sampling_rate=sampling_rate, target_rate=self.config.frontend.sampling_rate)
                for window in self._windows(reader):
                    pending.append((clip, window))
                    if len(pending) == batch_size:
                        self._flush(pending)
                clip.duration, clip.warnings = reader.duration, reader.warnings
            except AudioError as error:
                clip.error = error
            waiting.append(clip)
            if not pending:
                yield from waiting
                waiting.clear()
        self._flush(pending)
        yield from waiting

    def _windows(self, reader: AudioReader) -> Iterator[Samples]:
        frontend = self.config.frontend
        cut = windows(reader, frontend.window_samples, frontend.hop_samples)
        if frontend.long_clips == "truncate":
            yield from islice(cut, 1)
            for _ in cut:  # to the end, for the duration and the warnings
                pass
        else:
            yield from cut

    def _flush(self, pending: list[tuple[_Clip, Samples]]) -> None:
        """Send the windows through the network and hand every clip its results."""
        if not pending:
            return
        batch = np.zeros((len(pending), max(len(window) for _, window in pending)), np.float32)
        for row, (_, window) in zip(batch, pending, strict=True):
            row[: len(window)] = window
        probabilities, embeddings = self._infer(torch.from_numpy(batch).to(self.device))
        for (clip, _), *outputs in zip(pending, probabilities.cpu(), embeddings.cpu(), strict=True):
            clip.outputs.append((outputs[0], outputs[1]))
        pending.clear()

    @torch.inference_mode()
    def _infer(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities `[batch, classes]` and embeddings `[batch, dim]` of windows `[batch, samples]`."""
        embedding = self.network.embed(self.frontend(waveform))
        logits = self.network.head(embedding)
        return torch.softmax(logits / self.config.temperature, dim=-1), embedding

    def __repr__(self) -> str:
        return f"<EmotionClassifier {self.name} on {self.device}: {', '.join(self.labels)}>"


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device {str(device)!r} cannot be used ({reason}): pass 'auto' or 'cpu'") from error
    return chosen
