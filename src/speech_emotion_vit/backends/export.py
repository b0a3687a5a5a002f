"""A model as one ONNX file: waveform in, probabilities out, nothing else needed to run it but a runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..files import refuse_inputs, whole_file
from ..model.config import CONFIG_FILE, ClassifierConfig
from ..weights.checkpoint import load_arrays
from ..weights.resolve import ResolvedModel, resolve_model, sha256_file
from .onnx_clip import build_clip_model


def export_onnx(
    model: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    *,
    int8: bool = False,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Write a model as one self-contained ONNX file, whole or not at all, and return its path.

    The graph does all that `EmotionClassifier.predict` does: it takes ``waveform``, float32 `[samples]` of any length,
    mono at the rate in its metadata, and gives the calibrated ``probabilities`` `[classes]`, the ``embedding`` `[dim]`
    and ``speech``, how many seconds of it somebody speaks: where that is 0, so are the probabilities. Speech detector,
    windows, front-end and temperature are inside; only standard operators of opset 20 are used. The metadata has
    ``labels`` (JSON), ``sampling_rate`` (Hz), ``window_samples``, ``hop_samples``, ``temperature``, the ``model`` with
    its ``revision`` and ``sha256``, and the whole ``config`` (JSON).

    Args:
        model: as in `EmotionClassifier`.
        output: the file to write.
        int8: store matrices with 8 bits a value: half of the size, slightly different probabilities, the same speed.
        revision: as in `EmotionClassifier`.
        cache_dir: as in `EmotionClassifier`.
        local_files_only: as in `EmotionClassifier`.

    Raises:
        WeightsError: the model cannot be found, fetched, verified or read.
        ConfigError: nothing can be written there, `output` is a file of the model, or the model hears another rate
            than 16 kHz.
    """
    resolved = resolve_model(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    refuse_inputs(output, model_files(resolved))
    content = onnx_bytes(resolved, int8=int8)
    with whole_file(output) as temporary:
        temporary.write_bytes(content)
    return Path(output)


def onnx_bytes(model: ResolvedModel, *, int8: bool = False) -> bytes:
    """Return the ONNX file of a model that has been found, as `export_onnx` writes it.

    Raises:
        WeightsError: the model cannot be read.
        ConfigError: the model hears another rate than 16 kHz.
    """
    weights, config = load_arrays(model)
    return build_clip_model(config, weights, int8=int8, metadata=_metadata(model, config, int8=int8))


def model_files(resolved: ResolvedModel) -> list[Path]:
    """Return the files a model is read from."""
    own = [resolved.weights, resolved.weights.with_name(CONFIG_FILE)]
    return own if resolved.backbone is None else [*own, resolved.backbone]


def _metadata(resolved: ResolvedModel, config: ClassifierConfig, *, int8: bool) -> dict[str, str]:
    frontend = config.frontend
    return {
        "labels": json.dumps(config.labels, ensure_ascii=False),
        "sampling_rate": str(frontend.sampling_rate),
        "window_samples": str(frontend.window_samples),
        "hop_samples": str(frontend.hop_samples),
        "temperature": repr(config.temperature),
        "model": resolved.name,
        "revision": resolved.revision,
        "sha256": resolved.sha256 or sha256_file(resolved.weights),
        "weights": "int8" if int8 else "float32",
        "license": resolved.entry.license if resolved.entry else "",
        "config": json.dumps(config.to_dict(), ensure_ascii=False),
    }
