"""The network on ONNX Runtime, without torch: the graph is built around the verified safetensors file."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError, WeightsError, one_line
from ..extras import require
from ..model.config import ClassifierConfig
from ..weights.checkpoint import load_arrays
from ..weights.resolve import ResolvedModel
from .base import Backend, Floats
from .onnx_graph import EMBEDDING, INPUT, PROBABILITIES, Weights, build_model

PROVIDER = "CPUExecutionProvider"


class OnnxBackend(Backend):
    """A checkpoint on ONNX Runtime's CPU provider.

    Args:
        weights: the network's state dict in float32.
        config: what it is.

    Raises:
        ConfigError: ONNX Runtime is not installed, or too old for the graph.
    """

    def __init__(self, weights: Weights, config: ClassifierConfig) -> None:
        self._open(config, build_model(config, weights))

    def _open(self, config: ClassifierConfig, model: bytes) -> None:
        runtime = require("onnxruntime", "onnx")
        self.config = config
        self.device = "cpu"
        self._model = model
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only: stderr belongs to the caller
        try:
            self._session = runtime.InferenceSession(model, options, providers=[PROVIDER])
        except runtime.capi.onnxruntime_pybind11_state.Fail as error:
            raise ConfigError(
                f"onnxruntime {runtime.__version__} does not take the network ({error}): "
                "pip install --upgrade 'speech-emotion-vit[onnx]'"
            ) from error

    @classmethod
    def load(cls, resolved: ResolvedModel) -> OnnxBackend:
        """Load a model that has been found.

        Raises:
            WeightsError: its file cannot be read, or is not what its configuration says.
            ConfigError: ONNX Runtime is not installed, or too old for the graph.
        """
        return cls(*load_arrays(resolved))

    def __getstate__(self) -> tuple[ClassifierConfig, bytes]:
        return self.config, self._model  # a session cannot be copied

    def __setstate__(self, state: tuple[ClassifierConfig, bytes]) -> None:
        self._open(*state)

    def _infer(self, windows: Floats) -> tuple[Floats, Floats]:
        waveform = np.ascontiguousarray(windows, np.float32)
        try:
            probabilities, embedding = self._session.run([PROBABILITIES, EMBEDDING], {INPUT: waveform})
        except Exception as error:  # memory is short, say; its own have no base in common
            raise WeightsError(
                f"onnxruntime cannot run the network ({one_line(error)}): pass fewer windows at once, or use "
                "backend='torch'"
            ) from error
        return probabilities, embedding
