"""Weights on disk: safetensors in float16 with the configuration in the metadata, read strictly or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ..errors import ConfigError, WeightsError, one_line, quoted
from ..files import open_regular, whole_file
from ..model.config import CONFIG_FILE, WEIGHTS_FILE, ClassifierConfig
from .manifest import parse_config, read_config_json
from .resolve import ResolvedModel
from .tensors import not_finite, require_finite, require_shapes, tensor_shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..model.build import Network

__all__ = [
    "load_arrays",
    "load_checkpoint",
    "load_network",
    "load_weights",
    "read_config_json",
    "save_checkpoint",
    "save_folder",
]

HEAD = "head."  # what the names of the head's tensors begin with
_CONFIG_KEY, _BACKBONE_KEY = "config", "backbone"
_NUMPY_TYPES = ("F16", "F32", "F64")


def without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict's tensors except those of the head."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}


def save_checkpoint(
    path: str | os.PathLike[str],
    model: Network,
    config: ClassifierConfig,
    *,
    backbone: str | None = None,
    extra_metadata: Mapping[str, str] | None = None,
) -> None:
    """Write float16 tensors and the configuration into one safetensors file, whole or not at all.

    Args:
        path: the file to write.
        model: the network, on any device.
        config: must describe `model`.
        backbone: name of a model whose tensors are this one's, all but the head; then the head alone is written.
        extra_metadata: more text for the file's header, such as the version that trained it.

    Raises:
        WeightsError: model and config differ, or a value is not finite or does not fit into float16.
        ConfigError: nothing can be written there.
    """
    from safetensors.torch import save

    where = f"{os.fspath(path)}: not written"
    extra = dict(extra_metadata or {})
    if model.config != config.model:
        raise WeightsError(f"{where}: the network is {model.config}, the config says {config.model}: pass its own")
    if own := sorted({_CONFIG_KEY, _BACKBONE_KEY} & extra.keys()):
        raise WeightsError(f"{where}: the metadata {', '.join(own)} are its own: choose other keys")
    state = model.state_dict()
    tensors = {name: _for_disk(state[name]) for name in state if backbone is None or name.startswith(HEAD)}
    require_finite(tensors, where)
    metadata = {"format": "pt", _CONFIG_KEY: json.dumps(config.to_dict(), sort_keys=True), **extra}
    metadata |= {} if backbone is None else {_BACKBONE_KEY: backbone}
    with whole_file(path) as temporary:
        temporary.write_bytes(_reproducible(save(tensors, metadata)))


def _reproducible(data: bytes) -> bytes:
    """Sort the metadata, which the library writes in random order: the same network shall be the same file."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def _for_disk(tensor: Tensor) -> Tensor:
    import torch

    return tensor.detach().to("cpu", torch.float16).contiguous()


def save_folder(folder: str | os.PathLike[str], model: Network, config: ClassifierConfig) -> Path:
    """Write ``config.json`` and ``model.safetensors``, the layout of a Hub repository, and return the folder.

    Raises:
        WeightsError: as `save_checkpoint`.
        ConfigError: nothing can be written there.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be made ({error.strerror}): choose another place") from error
    save_checkpoint(target / WEIGHTS_FILE, model, config)
    with whole_file(target / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def load_network(resolved: ResolvedModel, device: str | torch.device = "cpu") -> tuple[Network, ClassifierConfig]:
    """Return the network of a model that has been found, as `load_checkpoint` does, and its configuration.

    Raises:
        WeightsError: as `load_checkpoint`.
        ConfigError: as `load_checkpoint`.
    """
    return load_checkpoint(resolved.weights, resolved.config, backbone=resolved.backbone, device=device)


def load_arrays(resolved: ResolvedModel) -> tuple[dict[str, npt.NDArray[np.float32]], ClassifierConfig]:
    """Return the tensors of a model that has been found, as `load_weights` does, and its configuration.

    Raises:
        WeightsError: as `load_weights`.
    """
    return load_weights(resolved.weights, resolved.config, backbone=resolved.backbone)


def load_checkpoint(
    path: str | os.PathLike[str],
    config: ClassifierConfig | None = None,
    *,
    backbone: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Network, ClassifierConfig]:
    """Build the network of a safetensors file and load it strictly, as float32, in evaluation mode.

    Whatever the caller has set in torch, a default type or device or inference mode, changes nothing.

    Args:
        path: the file.
        config: what the network is; None reads it from the file's metadata.
        backbone: the file with all other tensors, where the first holds those of the head alone.
        device: where the network goes.

    Raises:
        WeightsError: the file is missing, damaged or not safetensors, has no or another configuration, or a tensor
            is missing, unexpected, wrongly shaped, or not finite.
        ConfigError: the device has no room for it.
    """
    import torch

    where = os.fspath(path)
    try:
        with torch.inference_mode(False), torch.device("cpu"), ExitStack() as opened:
            metadata, places = _open(opened, where, backbone, "pt")
            config = _agreed_config(metadata.get(_CONFIG_KEY), config, where)
            # Mapped into memory, not read: the size of the network is known before any of it is allocated.
            mapped = {name: file.get_tensor(name) for name, file in places.items()}
            model = _build(config, mapped, where)
            require_finite(mapped, where)
            model.load_state_dict(mapped, strict=True)  # copies, so nothing of the mapped file stays in use
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{where}: damaged safetensors file ({error}): download or save it again") from error
    try:
        with torch.inference_mode(False):
            return model.to(device).eval(), config
    except RuntimeError as error:
        raise ConfigError(f"device {quoted(str(device))} cannot be used ({one_line(error)}): pass 'cpu'") from error


def load_weights(
    path: str | os.PathLike[str],
    config: ClassifierConfig | None = None,
    *,
    backbone: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, npt.NDArray[np.float32]], ClassifierConfig]:
    """Read the tensors of a safetensors file as strictly as `load_checkpoint`, as float32 arrays, without torch.

    Args:
        path: the file.
        config: what the network is; None reads it from the file's metadata.
        backbone: as in `load_checkpoint`.

    Raises:
        WeightsError: as `load_checkpoint`, or a tensor is of a type that numpy lacks.
    """
    where = os.fspath(path)
    try:
        with ExitStack() as opened:
            metadata, places = _open(opened, where, backbone, "np")
            config = _agreed_config(metadata.get(_CONFIG_KEY), config, where)
            slices = {name: file.get_slice(name) for name, file in places.items()}
            shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
            require_shapes(shapes, tensor_shapes(config.model), where)
            types = {name: each.get_dtype() for name, each in slices.items()}
            if foreign := sorted({kind for kind in types.values() if kind.startswith(("F", "BF"))} - {*_NUMPY_TYPES}):
                raise WeightsError(
                    f"{where}: tensors are of types that numpy lacks, {', '.join(foreign)}: "
                    "save them as float16 or float32, or use the torch backend"
                )
            if odd := [f"{name} ({kind})" for name, kind in types.items() if kind not in _NUMPY_TYPES]:
                raise not_finite(odd, where)
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused as such
                weights = {name: file.get_tensor(name).astype(np.float32) for name, file in places.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{where}: damaged safetensors file ({error}): download or save it again") from error
    if bad := [name for name, array in weights.items() if not np.isfinite(array).all()]:
        raise not_finite(bad, where)
    return weights, config


def _open(
    opened: ExitStack, where: str, backbone: str | os.PathLike[str] | None, framework: str
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the metadata of a file, and the open file that every tensor is in."""
    _require_safetensors(where)
    file = opened.enter_context(safe_open(where, framework=framework))
    metadata, names = file.metadata() or {}, file.keys()
    places = dict.fromkeys(names, file)
    if backbone is None:
        if _BACKBONE_KEY in metadata and all(name.startswith(HEAD) for name in names):
            raise WeightsError(
                f"{where}: holds the head alone of a network whose other tensors are those of "
                f"{metadata[_BACKBONE_KEY]}: use the model by its name (speech-emotion-vit models list)"
            )
        return metadata, places
    if others := [name for name in names if not name.startswith(HEAD)]:
        raise WeightsError(f"{where}: holds {len(others)} tensors beside its head's: leave the backbone out")
    _require_safetensors(os.fspath(backbone))
    under = opened.enter_context(safe_open(os.fspath(backbone), framework=framework))
    places |= {name: under for name in under.keys() if not name.startswith(HEAD)}  # noqa: SIM118, not a dict
    return metadata, places


def _build(config: ClassifierConfig, tensors: Mapping[str, Tensor], where: str) -> Network:
    """Return the network, with initial values; a giant, or one that the tensors do not fit, is never allocated."""
    import torch

    from ..model.build import build_network

    require_shapes({name: tensor.shape for name, tensor in tensors.items()}, tensor_shapes(config.model), where)
    with torch.random.fork_rng(devices=[]):  # initial values are overwritten, so the caller's generator must not move
        return build_network(config.model).float()


def _agreed_config(stored: str | None, given: ClassifierConfig | None, where: str) -> ClassifierConfig:
    """Return the one configuration of the two; only the temperature may differ, for it can be fitted anew."""
    if stored is None:
        if given is None:
            raise WeightsError(
                f"{where}: no config in its metadata: give a folder with {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
        return given
    parsed = parse_config(stored, f"{where}: metadata")
    if given is None:
        return parsed
    differing = [key for key in ("labels", "model", "frontend") if getattr(parsed, key) != getattr(given, key)]
    if differing:
        raise WeightsError(
            f"{where}: {', '.join(differing)} of its metadata differ from the config beside it: "
            "config and weights do not belong together"
        )
    return given


def _require_safetensors(path: str) -> None:
    try:
        with open_regular(path) as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from error
    if start[8:] != b"{":  # eight bytes of length, then the JSON header
        raise WeightsError(
            f"{path}: not a safetensors file; pickles could run code and are never loaded: turn an official "
            "checkpoint into one with: speech-emotion-vit convert FILE --output DIR"
        )
