"""The authors' checkpoints, read without running any code in them."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..errors import ConfigError, WeightsError
from ..files import open_regular
from ..model.config import ClassifierConfig, ModelConfig
from ..model.vit import SpectrogramViT
from .manifest import CORPUS_LABELS
from .tensors import require_finite, require_shapes, tensor_shapes

OFFICIAL_NAMES = {
    "cls_token": "cls_token",
    "stem.convolutions.{}": "conv_stem.{}",
    "patch_embedding.input_norm": "to_patch_embedding.1",
    "patch_embedding.projection": "to_patch_embedding.2",
    "patch_embedding.output_norm": "to_patch_embedding.3",
    "blocks.{}.attention.norm": "transformer.layers.{}.0.norm",
    "blocks.{}.attention.qkv": "transformer.layers.{}.0.to_qkv",
    "blocks.{}.attention.projection": "transformer.layers.{}.0.to_out.0",
    "blocks.{}.mlp.norm": "transformer.layers.{}.1.net.0",
    "blocks.{}.mlp.hidden": "transformer.layers.{}.1.net.1",
    "blocks.{}.mlp.output": "transformer.layers.{}.1.net.4",
    "norm": "transformer.norm",
    "head": "mlp_head",
}
"""Our module to the official one, ``{}`` being a number."""

_STEM_STRIDE = 3  # convolution, InstanceNorm and GELU each count in the official stem
_STATE = "model_state_dict"


def official_name(name: str) -> str:
    """Return the official state-dict key of our state-dict key `name`."""
    module, _, kind = name.rpartition(".") if name != "cls_token" else (name, "", "")
    number = re.search(r"\d+", module)
    official = OFFICIAL_NAMES[re.sub(r"\d+", "{}", module)]
    if number is not None:
        index = int(number.group())
        official = official.format(index * _STEM_STRIDE if official.startswith("conv_stem") else index)
    return f"{official}.{kind}" if kind else official


def convert_official(
    path: str | os.PathLike[str], *, labels: Sequence[str] | None = None
) -> tuple[SpectrogramViT, ClassifierConfig]:
    """Read an official checkpoint: ``torch.save({"model_state_dict": ...})`` of the published student or teacher.

    Args:
        path: the file; nothing in it is executed.
        labels: names of the classes in the order of the outputs. None takes CREMA-D's for 6 classes; with 7 it could
            be EmoDB's or SAVEE's, and the caller must say.

    Raises:
        WeightsError: the file is unreadable, is no such checkpoint, or does not fit the labels.
    """
    where = os.fspath(path)
    state = _read_state(where)
    teacher = any(key.startswith("conv_stem.") for key in state)
    if teacher and Path(where).name.startswith("teacher_1001_"):
        raise WeightsError(
            f"{where}: this teacher was trained on images 1001 columns wide, for which the official code divides the "
            "coordinates by the wrong side, so they differ from this package's: convert a teacher of 128 x 128"
        )
    head = state.get("mlp_head.weight")
    if head is None or head.ndim != 2:
        raise WeightsError(f"{where}: no mlp_head.weight [classes, 256] among its tensors: not an official checkpoint")
    try:
        shape = ModelConfig.teacher if teacher else ModelConfig.student
        model_config = shape(num_classes=head.shape[0])
        config = ClassifierConfig(labels=_labels(head.shape[0], labels, where), model=model_config)
    except ConfigError as error:
        raise WeightsError(f"{where}: {error}: give one label per class") from error
    model = SpectrogramViT(model_config)
    names = {official_name(name): name for name in model.state_dict()}
    shapes = tensor_shapes(model_config)
    found = {name: tensor.shape for name, tensor in state.items()}
    require_shapes(found, {key: shapes[name] for key, name in names.items()}, where)
    require_finite(state, where)
    model.load_state_dict({name: state[key].float() for key, name in names.items()}, strict=True)
    return model.eval(), config


def _labels(classes: int, labels: Sequence[str] | None, where: str) -> tuple[str, ...]:
    if labels is not None:
        return tuple(labels)
    fitting = {corpus: names for corpus, names in CORPUS_LABELS.items() if len(names) == classes}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    choices = " or ".join(f"{corpus} ({', '.join(names)})" for corpus, names in fitting.items())
    raise WeightsError(
        f"{where}: {classes} classes, which fits {choices or 'none of the corpora'}: say which with --dataset, "
        "or name them with --labels (labels=...)"
    )


def _read_state(path: str) -> Mapping[str, Tensor]:
    try:
        with open_regular(path) as file:
            _require_no_bomb(file, path)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from error
    except Exception as error:  # bytes that are no pickle, or a hostile one, end in any exception
        words = str(error).strip() or type(error).__name__
        first = re.split(r"\.\s|\n", words)[0]  # torch goes on for a page
        raise WeightsError(
            f"{path}: not a checkpoint of tensors alone, so nothing of it was loaded ({first[:160]}): "
            "give an official checkpoint as published"
        ) from error
    state = content.get(_STATE) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        held = sorted(map(str, content))[:6] if isinstance(content, dict) else type(content).__name__
        raise WeightsError(f"{path}: no {_STATE!r} in it, but {held}: give an official checkpoint as published")
    odd = [
        str(key)
        for key, value in state.items()
        if not (isinstance(key, str) and isinstance(value, Tensor) and value.layout is torch.strided)
        or value.device.type != "cpu"  # a meta tensor has no values
        or value.is_nested
    ]
    if odd:
        raise WeightsError(
            f"{path}: {_STATE} holds more than named dense tensors: {', '.join(odd[:6])}: "
            "give an official checkpoint as published"
        )
    return state


def _require_no_bomb(file: BinaryIO, path: str) -> None:
    """Refuse an archive that unpacks to more than its own size; ``torch.save`` does not compress."""
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > os.fstat(file.fileno()).st_size:
            raise WeightsError(
                f"{path}: unpacks to {unpacked:,} bytes, more than it has: give an official checkpoint as published"
            )
    file.seek(0)
