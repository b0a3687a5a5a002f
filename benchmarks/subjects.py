"""The systems under test: each turns an audio file into an answer, as its own documentation shows.

Nothing heavy is imported before a subject is loaded, so that a process that runs one subject pays for that one only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

LABELS = 6


class Runner(Protocol):
    def predict(self, path: str) -> list[float]:
        """Return what the subject answers about a file: probabilities or features."""

    def predict_many(self, paths: Sequence[str]) -> list[list[float]]:
        """Return the same for many files, in the subject's own best way."""


@dataclass(frozen=True)
class Subject:
    key: str
    title: str
    modules: tuple[str, ...]
    """What must be installed."""
    distributions: tuple[str, ...]
    """What a user installs for it, for the install size."""
    load: Callable[[str | None], Runner]
    """Takes the folder that `prepare` filled."""
    prepare: Callable[[str], None] | None = None
    """Writes random weights into a folder, so that loading them can be timed."""
    values: int = LABELS
    """How many numbers an answer has."""
    ours: bool = False

    @property
    def missing(self) -> list[str]:
        return [module for module in self.modules if find_spec(module) is None]


class _Ours:
    def __init__(self, model: str, backend: str) -> None:
        from speech_emotion_vit import EmotionClassifier

        self.classifier = EmotionClassifier(model, backend=backend)  # type: ignore[arg-type]

    def predict(self, path: str) -> list[float]:
        return list(self.classifier.predict(path).probabilities.values())

    def predict_many(self, paths: Sequence[str]) -> list[list[float]]:
        return [list(prediction.probabilities.values()) for prediction in self.classifier.predict_batch(paths)]


class _Egemaps:
    def __init__(self) -> None:
        import opensmile

        self.smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
        )

    def predict(self, path: str) -> list[float]:
        return [float(value) for value in self.smile.process_file(path).iloc[0]]

    def predict_many(self, paths: Sequence[str]) -> list[list[float]]:
        return [[float(value) for value in row] for row in self.smile.process_files(paths).to_numpy()]


class _Transformers:
    """A sequence classifier as ``pipeline("audio-classification")`` runs it, without the pipeline's own cost."""

    def __init__(self, folder: str, extractor: str) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.extractor = getattr(transformers, extractor)()
        self.model = transformers.AutoModelForAudioClassification.from_pretrained(folder).eval()

    def predict(self, path: str) -> list[float]:
        return self._answers([path])[0]

    def predict_many(self, paths: Sequence[str]) -> list[list[float]]:
        return [answer for start in range(0, len(paths), 8) for answer in self._answers(paths[start : start + 8])]

    def _answers(self, paths: Sequence[str]) -> list[list[float]]:
        import soundfile
        import torch

        waveforms = [soundfile.read(path, dtype="float32")[0] for path in paths]
        padding = {} if len(paths) == 1 else {"padding": True}
        if type(self.extractor).__name__.startswith("AST"):
            padding = {}  # pads to its own fixed length
        inputs = self.extractor(waveforms, sampling_rate=16_000, return_tensors="pt", **padding)
        with torch.inference_mode():
            answers: list[list[float]] = self.model(**inputs).logits.softmax(dim=-1).tolist()
        return answers


def _prepare(config: Callable[[Any], Any]) -> Callable[[str], None]:
    def write(folder: str) -> None:
        import torch
        import transformers

        torch.manual_seed(0)
        transformers.logging.set_verbosity_error()
        transformers.AutoModelForAudioClassification.from_config(config(transformers)).save_pretrained(folder)

    return write


def _wav2vec2_large(transformers: Any) -> Any:
    return transformers.Wav2Vec2Config(
        num_labels=LABELS,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
    )


def subjects() -> list[Subject]:
    """Return this package with every bundled network and both backends, then the peers.

    Of models that differ in their weights alone the first stands for all.
    """
    from speech_emotion_vit.weights.manifest import load_manifest

    found = []
    shapes = set()
    for name, entry in load_manifest().models.items():
        model = replace(entry.config.model, num_classes=LABELS)
        shape = (model, entry.config.frontend)
        if entry.file is None or shape in shapes:
            continue
        shapes.add(shape)
        for backend, module in (("torch", "torch"), ("onnx", "onnxruntime")):
            found.append(
                Subject(
                    key=f"{name}:{backend}",
                    title=f"**{name}**, {backend}",
                    modules=(module,),
                    distributions=("speech-emotion-vit",)
                    if backend == "torch"
                    else ("speech-emotion-vit", "onnxruntime"),
                    load=lambda _, name=name, backend=backend: _Ours(name, backend),  # type: ignore[misc]
                    values=len(entry.config.labels),
                    ours=True,
                )
            )
    transformers = {"modules": ("transformers", "torch"), "distributions": ("transformers", "torch", "soundfile")}
    return [
        *found,
        Subject(
            "egemaps", "opensmile eGeMAPS functionals", ("opensmile",), ("opensmile",), lambda _: _Egemaps(), values=88
        ),
        *(
            Subject(
                key=key,
                title=title,
                load=lambda folder, extractor=extractor: _Transformers(folder, extractor),  # type: ignore[misc]
                prepare=_prepare(config),
                **transformers,  # type: ignore[arg-type]
            )
            for key, title, extractor, config in (
                ("wav2vec2-base", "wav2vec2-base classifier", "Wav2Vec2FeatureExtractor", _wav2vec2_base),
                ("wav2vec2-large", "wav2vec2-large classifier", "Wav2Vec2FeatureExtractor", _wav2vec2_large),
                ("ast", "AST classifier", "ASTFeatureExtractor", _ast),
            )
        ),
    ]


def _wav2vec2_base(transformers: Any) -> Any:
    return transformers.Wav2Vec2Config(num_labels=LABELS)


def _ast(transformers: Any) -> Any:
    return transformers.ASTConfig(num_labels=LABELS)


def find_subject(key: str) -> Subject:
    return next(subject for subject in subjects() if subject.key == key)


def clip_of(seconds: float, folder: Path) -> str:
    """Write the example clips in a row, repeated or cut to a length, and return the path of the file."""
    import numpy as np
    import soundfile

    clips = sorted((Path(__file__).resolve().parent.parent / "examples" / "clips").glob("*.flac"))
    speech = np.concatenate([soundfile.read(clip, dtype="int16")[0] for clip in clips])
    speech = speech[8_000:]  # somebody speaks in the first second, else the shortest clip has no answer
    path = folder / f"{seconds:g}.wav"
    soundfile.write(path, np.resize(speech, round(seconds * 16_000)), 16_000)
    return str(path)
