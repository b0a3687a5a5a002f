"""The Python API: audio in, emotion probabilities out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from .audio.inputs import several
from .audio.reader import AudioInput, AudioReader, Channel
from .backends.base import Backend, Floats
from .backends.load import BackendName, Device, DType, load_backend
from .batch import Batcher, Clip
from .errors import AudioError, ConfigError, quoted
from .explain import Explanation, explain
from .files import whole_file
from .model.config import TIMELINE_HOP, ClassifierConfig
from .prediction import Choice, Prediction
from .segments import SegmentsInput, read_segments
from .stream import EmotionStream
from .timeline import Timeline
from .turns import answer_turns, remarks
from .weights.card import CARD_FILE, CardFacts, card_for
from .weights.resolve import resolve_model
from .windows import NOBODY, Segmenter, require_batch_size

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from .backends.torch import TorchBackend
    from .model.build import Network
    from .model.frontend import LogMel
    from .publish import Publication
    from .training.fit.own_labels import HeadEvaluation

    class _BatchOptions(TypedDict, total=False):
        sampling_rate: int | None
        channel: Channel
        track: int | None
        labels: Sequence[str] | None
        threshold: float
        batch_size: int


_THREADS = min(4, os.cpu_count() or 1)  # for decoding; more threads do not make one network faster


class EmotionClassifier:
    """A model that tells the emotion in speech.

    Args:
        model: a name from the manifest (``speech-emotion-vit models list``), a Hugging Face Hub repository
            ``org/repo``, a folder with ``config.json`` and ``model.safetensors``, or a ``.safetensors`` file of this
            package. None is the bundled default, which needs no download.
        device: ``auto`` (CUDA if there is a GPU, else the CPU), any torch device, or the number of a GPU.
        revision: branch, tag or commit of a Hub repository.
        cache_dir: where downloads are kept; the Hub client's cache by default.
        local_files_only: never use the network.
        backend: ``torch``, ``onnx`` (ONNX Runtime on the CPU, without torch), or ``auto``: torch if it is installed.
        dtype: the type in which torch computes the network: ``float32``, or on a GPU ``float16`` or ``bfloat16``.
        vad_filter: whether parts without speech are left out. A recording without speech then has no label. With
            False every sound gets a label.

    Raises:
        WeightsError: the model cannot be found, fetched, verified or read.
        ConfigError: the device, the backend or the type does not exist, or is not installed.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        device: Device = "auto",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        backend: BackendName = "auto",
        dtype: DType = "float32",
        vad_filter: bool = True,
    ) -> None:
        resolved = resolve_model(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        self.name = f"{resolved.name}@{resolved.revision}"
        self.backend: Backend = load_backend(resolved, backend, device, dtype)
        self.vad_filter = vad_filter
        self.facts: CardFacts | None = None
        """Licence, languages and data that `save` writes into the model card."""
        self._source = resolved
        self.evaluation: HeadEvaluation | None = None
        """The scores of a model made by `fit_head`."""

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str], **options: Any) -> EmotionClassifier:
        """Return `EmotionClassifier(model, **options)`, under the name that other libraries use."""
        return cls(model, **options)

    @property
    def config(self) -> ClassifierConfig:
        """Labels, front-end, network and temperature of the model."""
        return self.backend.config

    @property
    def device(self) -> Any:
        """The device of the model: a `torch.device`, or ``cpu`` with ONNX Runtime."""
        return self.backend.device

    @property
    def network(self) -> Network:
        """The network, with the torch backend."""
        return self._torch().network

    @property
    def frontend(self) -> LogMel:
        """The front-end, with the torch backend."""
        return self._torch().frontend

    def _torch(self) -> TorchBackend:
        if not hasattr(self.backend, "network"):
            raise ConfigError(f"{type(self.backend).__name__} has no torch modules: use backend='torch'")
        return cast("TorchBackend", self.backend)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of `Prediction.probabilities`."""
        return self.config.labels

    def predict(
        self,
        audio: AudioInput,
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        track: int | None = None,
        labels: Sequence[str] | None = None,
        threshold: float = 0.0,
    ) -> Prediction:
        """Return the emotion probabilities of one piece of audio.

        Parts without speech are left out, except for a short margin around the speech. If the rest is longer than a
        window (6 s with the default model, 4 s with the paper's), it is cut into windows that overlap by half, the last
        one aligned to the end. Their probabilities are averaged, weighted by the speech in each window. If there is no
        speech at all, the label is None.

        Args:
            audio: a path, encoded bytes, a binary file object, or a numpy array or torch tensor on any device,
                `[samples]` or `[channels, samples]`, float or integer PCM.
            sampling_rate: Hz, 4000 to 384000. Arrays and tensors need it; it is refused for everything else.
            channel: ``mix`` is the mean of all channels; 0 is the first (left), 1 the second, and so on. If each
                speaker of a call has a channel, predict one channel after the other.
            track: number of the audio track in a file that has several; 0 is the first, None the default track.
            labels: at least two of the model's labels: only they can be the answer, and their probabilities sum to 1.
                None is all labels.
            threshold: least probability of the label, from 0 to 1. If no label reaches it, the label is None, and a
                warning says so.

        Raises:
            AudioError: the audio cannot be read or makes no sense.
            ConfigError: `channel`, `track`, `labels` or `threshold` is out of range.
        """
        choice = Choice(self.labels, labels, threshold)
        return self._prediction(self._one(audio, sampling_rate, channel, track), choice)

    @overload
    def predict_batch(
        self, audios: Iterable[AudioInput], *, errors: Literal["raise"] = "raise", **options: Unpack[_BatchOptions]
    ) -> list[Prediction]: ...

    @overload
    def predict_batch(
        self, audios: Iterable[AudioInput], *, errors: Literal["return"], **options: Unpack[_BatchOptions]
    ) -> list[Prediction | AudioError]: ...

    def predict_batch(
        self,
        audios: Iterable[AudioInput],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        track: int | None = None,
        labels: Sequence[str] | None = None,
        threshold: float = 0.0,
        batch_size: int = 64,
        errors: Literal["raise", "return"] = "raise",
    ) -> Sequence[Prediction | AudioError]:
        """Return the predictions of many pieces of audio, in order: the numbers that `predict` gives one by one.

        Args:
            audios: what `predict` takes, any number of it.
            sampling_rate: Hz of the arrays and tensors among them; files have their own.
            channel: as in `predict`, and so are `track`, `labels` and `threshold`.
            track: of every piece.
            labels: of every piece.
            threshold: of every piece.
            batch_size: windows that go through the network at once.
            errors: ``raise`` the first `AudioError`, or ``return`` it in the place of the prediction and go on.

        Raises:
            AudioError: a piece cannot be read, with ``errors="raise"``.
            ConfigError: `batch_size` is less than 1, `errors` is neither of the two, or `audios` is a single path.
        """
        return list(
            self.iter_predictions(
                audios,
                sampling_rate=sampling_rate,
                channel=channel,
                track=track,
                labels=labels,
                threshold=threshold,
                batch_size=batch_size,
                errors=cast(Any, errors),  # one of two, each of which has its own return type
            )
        )

    @overload
    def iter_predictions(
        self, audios: Iterable[AudioInput], *, errors: Literal["raise"] = "raise", **options: Unpack[_BatchOptions]
    ) -> Iterator[Prediction]: ...

    @overload
    def iter_predictions(
        self, audios: Iterable[AudioInput], *, errors: Literal["return"], **options: Unpack[_BatchOptions]
    ) -> Iterator[Prediction | AudioError]: ...

    def iter_predictions(
        self,
        audios: Iterable[AudioInput],
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        track: int | None = None,
        labels: Sequence[str] | None = None,
        threshold: float = 0.0,
        batch_size: int = 64,
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Prediction | AudioError]:
        """Yield what `predict_batch` returns, each as soon as it is known: memory does not grow with their number."""
        if errors not in ("raise", "return"):
            raise ConfigError(f"errors must be 'raise' or 'return', not {quoted(errors)}")
        choice = Choice(self.labels, labels, threshold)
        audios = several(audios)
        batcher = Batcher(
            self.backend,
            sampling_rate=sampling_rate,
            channel=channel,
            track=track,
            vad_filter=self.vad_filter,
            batch_size=require_batch_size(batch_size),
            threads=_THREADS,
            skip_rate=True,
        )
        for clip in batcher.run(audios):
            if clip.error is None:
                yield self._prediction(clip, choice)
            elif errors == "raise":
                raise clip.error
            else:
                yield clip.error

    def embed(
        self,
        audio: AudioInput,
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        track: int | None = None,
    ) -> Floats:
        """Return the input of the classification head, float32 `[embedding_dim]`: the mean over all windows.

        If there is no speech, it is the embedding of the beginning. The embedding of the paper's networks is the CLS
        token; that of the others is the mean and the deviation over time of the blocks in ``config.model.pooled``.

        Args:
            audio: as in `predict`.
            sampling_rate: as in `predict`.
            channel: as in `predict`.
            track: as in `predict`.

        Raises:
            AudioError: the audio cannot be read or makes no sense.
            ConfigError: `channel` or `track` is out of range.
        """
        return self._one(audio, sampling_rate, channel, track).means()[1]

    def timeline(
        self,
        audio: AudioInput,
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        track: int | None = None,
        labels: Sequence[str] | None = None,
        threshold: float = 0.0,
        hop: float = TIMELINE_HOP,
        window: float | None = None,
        smoothing: float = 0.0,
        batch_size: int = 16,
        progress: Callable[[float], object] | None = None,
        segments: SegmentsInput | None = None,
    ) -> Timeline:
        """Return the emotion probabilities along a recording of any length, a segment per window.

        The recording is read in blocks, so memory grows only by the segments. The answer of a segment is the one that
        `predict` gives for the audio from its start to its end. The last segment is aligned to the end of the
        recording; a recording shorter than a window is one segment.

        Args:
            audio: as in `predict`.
            sampling_rate: as in `predict`.
            channel: as in `predict`.
            track: as in `predict`.
            labels: as in `predict`.
            threshold: as in `predict`.
            hop: seconds from the start of one segment to the start of the next. Multiples of the front-end's
                ``hop_length`` are fastest: windows then share most of their Mel frames.
            window: seconds of audio per segment, at most (and by default) those of the model's window. Shorter windows
                follow changes more closely and are less certain.
            smoothing: time constant in seconds of an exponential average over the segments so far; 0 is none.
                Segments without speech are left out of it.
            batch_size: windows that go through the network at once.
            progress: called with the seconds read so far.
            segments: segments of a diarisation or a transcript instead of windows: the path of a file (RTTM, SRT,
                WebVTT, CSV, Whisper's JSON), tuples ``(start, end)``, ``(start, end, speaker)`` or ``(start, end,
                speaker, text)`` in seconds, dictionaries or objects with these names, or an annotation of pyannote.
                Each gets the answer that `predict` gives for its samples, and keeps its speaker and text. It excludes
                `hop`, `window` and `smoothing`.

        Returns:
            A `Timeline`. If the recording cannot be read to its end, it holds what came before, and a warning says so.

        Raises:
            AudioError: nothing of the audio can be read.
            ConfigError: an option is out of range.
        """
        choice = Choice(self.labels, labels, threshold)
        if segments is None:
            segmenter = Segmenter(
                self.backend,
                vad_filter=self.vad_filter,
                hop=hop,
                window=window,
                smoothing=smoothing,
                batch_size=batch_size,
            )
        elif (hop, window, smoothing) != (TIMELINE_HOP, None, 0.0):
            raise ConfigError("hop, window and smoothing are for windows: leave them out, or segments")
        reader = self._reader(audio, sampling_rate, channel, track)
        notes: tuple[str, ...] = ()
        if segments is None:
            found, fault = segmenter.run(reader, progress)
        else:
            turns = read_segments(segments, reader.file)
            found, fault = answer_turns(
                self.backend, turns, reader, progress, batch_size=batch_size, vad_filter=self.vad_filter
            )
            notes = tuple(remarks(turns, reader.duration))
        if fault is not None and not (found and reader.duration):
            raise fault
        broken = () if fault is None else (str(fault).removeprefix(f"{reader.name}: "),)
        nobody = () if any(segment.speech for segment in found) else (NOBODY,)
        warnings = (*broken, *nobody, *notes, *reader.warnings)
        return Timeline(
            tuple(map(choice.apply, found)),
            reader.file,
            reader.duration,
            self.name,
            warnings,
            given=segments is not None,
        )

    def stream(
        self,
        sampling_rate: int,
        *,
        channel: Channel = "mix",
        hop: float = TIMELINE_HOP,
        window: float | None = None,
        smoothing: float = 0.0,
        labels: Sequence[str] | None = None,
        threshold: float = 0.0,
    ) -> EmotionStream:
        """Return a stream for live audio: it gives the segments of `timeline` as soon as they are complete.

        >>> stream = classifier.stream(48_000)
        >>> for chunk in microphone:
        ...     for segment in stream.push(chunk):
        ...         print(segment)

        Args:
            sampling_rate: Hz, 4000 to 384000, of the chunks.
            channel: as in `predict`.
            hop: as in `timeline`.
            window: as in `timeline`; the first segment comes after so many seconds.
            smoothing: as in `timeline`.
            labels: as in `predict`.
            threshold: as in `predict`.

        Raises:
            AudioError: the rate is out of range.
            ConfigError: an option is out of range.
        """

        def new_segmenter() -> Segmenter:
            return Segmenter(self.backend, vad_filter=self.vad_filter, hop=hop, window=window, smoothing=smoothing)

        return EmotionStream(
            new_segmenter,
            Choice(self.labels, labels, threshold),
            sampling_rate=sampling_rate,
            target_rate=self.config.frontend.sampling_rate,
            channel=channel,
        )

    def explain(
        self,
        audio: AudioInput,
        *,
        sampling_rate: int | None = None,
        channel: Channel = "mix",
        track: int | None = None,
        start: float | None = None,
    ) -> Explanation:
        """Return the network's attention over time in one window, with the log-Mel image of the window.

        Of longer audio, the window is the one with the highest probability of the label of the whole, or the one that
        begins at `start`.

        Args:
            audio: as in `predict`.
            sampling_rate: as in `predict`.
            channel: as in `predict`.
            track: as in `predict`.
            start: beginning of the window in seconds.

        Raises:
            AudioError: the audio cannot be read, or ends before `start`.
            ConfigError: `start` is out of range, or the backend is not torch.
        """
        reader = self._reader(audio, sampling_rate, channel, track)
        return explain(self.backend, reader, start, model=self.name, vad_filter=self.vad_filter)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model to a folder, from which `EmotionClassifier(folder)` loads it, and return the folder.

        The files are ``config.json``, ``model.safetensors`` (float16) and the model card ``README.md``: the layout of
        a repository of the Hub.

        Args:
            folder: is made if it does not exist.

        Raises:
            ConfigError: nothing can be written there, or the backend is not torch.
            WeightsError: a value of the network is not finite or does not fit into float16.
        """
        from .weights.checkpoint import save_folder

        card = card_for(self._source, self.config, self.facts, fitted=self.evaluation is not None)
        target = save_folder(folder, self.network, self.config)
        with whole_file(target / CARD_FILE) as temporary:
            temporary.write_text(card, encoding="utf-8")
        return target

    def push_to_hub(
        self,
        repo_id: str,
        *,
        onnx: bool = False,
        private: bool = False,
        revision: str | None = None,
        license: str | None = None,
        language: str | Sequence[str] = (),
        datasets: str | Sequence[str] = (),
        base_model: str | None = None,
        message: str | None = None,
        dry_run: bool = False,
    ) -> Publication:
        """Send the model to the Hugging Face Hub, from where ``EmotionClassifier("org/name")`` loads it.

        The repository is made if it does not exist, and all files are sent in one commit. The token comes from
        ``hf auth login`` or ``HF_TOKEN``.

        Args:
            repo_id: the repository, ``org/name``.
            onnx: send the ONNX file too, as ``model.onnx``.
            private: make a private repository; an existing one must be private already.
            revision: branch to commit to, made if it does not exist; None is the main branch.
            license: licence of the weights, as the Hub writes it: ``mit``, ``cc-by-4.0``, ``other``.
            language: languages of the training data, ISO 639: ``en``, ``de``.
            datasets: names of the training data.
            base_model: the model of the Hub that it was made from, ``org/name``.
            message: text of the commit.
            dry_run: only return what would be sent; no connection is made.

        Returns:
            The files with their sizes, the card, and the commit, with which `revision` loads this state again.

        Raises:
            ConfigError: the Hub does not allow a name, or the backend is not torch.
            PublishError: the Hub cannot be reached, or refuses the files.
        """
        from .publish import MESSAGE, publish

        facts = CardFacts(
            license=license, language=_several(language), datasets=_several(datasets), base_model=base_model
        )
        with tempfile.TemporaryDirectory(prefix="speech-emotion-vit-") as folder:
            return publish(
                self.save(folder),
                repo_id,
                onnx=onnx,
                private=private,
                revision=revision,
                facts=facts,
                message=message or MESSAGE,
                dry_run=dry_run,
            )

    def _reader(self, audio: AudioInput, sampling_rate: int | None, channel: Channel, track: int | None) -> AudioReader:
        rate = self.config.frontend.sampling_rate
        return AudioReader(audio, sampling_rate=sampling_rate, target_rate=rate, channel=channel, track=track)

    def _one(self, audio: AudioInput, sampling_rate: int | None, channel: Channel, track: int | None) -> Clip:
        batcher = Batcher(
            self.backend, sampling_rate=sampling_rate, vad_filter=self.vad_filter, channel=channel, track=track
        )
        (clip,) = batcher.run([audio])
        if clip.error is not None:
            raise clip.error
        return clip

    def _prediction(self, clip: Clip, choice: Choice) -> Prediction:
        row = clip.means()[0].tolist() if clip.speech else [0.0] * len(self.labels)
        return choice.apply_to_clip(
            Prediction(
                probabilities=dict(zip(self.labels, row, strict=True)),
                duration=clip.duration,
                speech=clip.speech,
                model=self.name,
                warnings=clip.warnings,
            )
        )

    def __repr__(self) -> str:
        return f"<EmotionClassifier {self.name} on {self.device}: {', '.join(self.labels)}>"


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
