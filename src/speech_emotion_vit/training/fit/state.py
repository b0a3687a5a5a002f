"""The state of a stage between two epochs, in one safetensors file that appears whole or not at all.

All randomness of an epoch is seeded by (seed, stage, epoch), so no generator's state needs to be stored.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...errors import TrainingError, one_line
from ...files import whole_file

FORMAT = 1

Tensors = dict[str, Tensor]


def save_state(path: Path, groups: dict[str, Tensors], progress: dict[str, Any]) -> None:
    """Write groups of tensors and the JSON-ready `progress` to `path`, atomically.

    Raises:
        TrainingError: the disk is full; what was there before still is.
        ConfigError: nothing can be written there.
    """
    tensors = {
        f"{group}.{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    with whole_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": str(FORMAT), "progress": json.dumps(progress)})
        except SafetensorError as error:
            raise TrainingError(f"{path}: cannot be written ({error}): make room, and go on with --resume") from error


def load_state(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Return what `save_state` wrote.

    Raises:
        TrainingError: the file cannot be read, or was written by another version.
    """
    groups: dict[str, Tensors] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 - not a mapping
                group, _, name = key.partition(".")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be resumed from ({error}): remove it to repeat this stage") from error
    if metadata.get("format") != str(FORMAT):
        raise TrainingError(
            f"{path}: was written by another version (format {metadata.get('format')}): remove it to repeat this stage"
        )
    try:
        progress = json.loads(metadata["progress"])
    except (KeyError, ValueError, RecursionError):
        progress = None
    if not isinstance(progress, dict):
        raise TrainingError(f"{path}: does not say how far the stage was: remove it to repeat this stage")
    return groups, progress


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Turn whatever a stored state does not fit into, in the block, into one error.

    Raises:
        TrainingError: the state at `path` is of something else, or damaged.
    """
    try:
        yield
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: does not fit this run ({one_line(error)[:200]}): remove it to repeat this stage"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimiser's state as flat tensors named ``<parameter>.<what>``."""
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put back what `optimizer_tensors` returned; the settings stay those of `optimizer`."""
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
