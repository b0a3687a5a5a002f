"""From a model that has been found to what runs it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ..errors import ConfigError, one_line, quoted
from ..weights.resolve import ResolvedModel
from .base import Backend

if TYPE_CHECKING:
    import torch

BackendName = Literal["auto", "torch", "onnx"]
Device: TypeAlias = "str | int | torch.device | None"
DType: TypeAlias = "str | torch.dtype"


def load_backend(
    resolved: ResolvedModel, backend: BackendName = "auto", device: Device = "auto", dtype: DType = "float32"
) -> Backend:
    """Load a model that has been found; the arguments are those of `EmotionClassifier`.

    Raises:
        WeightsError: its file cannot be read, or is not what its configuration says.
        ConfigError: backend, device or type do not exist here.
    """
    if backend not in get_args(BackendName):
        raise ConfigError(f"backend must be 'auto', 'torch' or 'onnx', not {quoted(backend)}")
    if (_installed() if backend == "auto" else backend) == "torch":
        try:
            from .torch import TorchBackend
        except ImportError as error:
            raise ConfigError(
                f"torch cannot be imported ({one_line(error)}): pip install torch, or backend='onnx'"
            ) from error
        return TorchBackend.load(resolved, device, dtype)
    if str(device).lower() not in ("auto", "cpu", "none"):
        raise ConfigError(f"device {quoted(device)} is not for the ONNX backend: pass 'cpu', or backend='torch'")
    if str(dtype) not in ("float32", "torch.float32"):
        raise ConfigError(f"dtype {quoted(dtype)} is not for the ONNX backend: pass 'float32', or backend='torch'")
    from .onnx import OnnxBackend

    return OnnxBackend.load(resolved)


def _installed() -> str:
    for module, name in (("torch", "torch"), ("onnxruntime", "onnx")):
        if importlib.util.find_spec(module) is not None:
            return name
    raise ConfigError("neither torch nor ONNX Runtime is installed: pip install torch, or pip install onnxruntime")
