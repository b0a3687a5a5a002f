"""State dicts are compared with the network they are meant for before anything is loaded, or even allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .config import ModelConfig
from .errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_STEM_VALUES = {"none": 0, "conv6": 46_529, "strided": 185_888}  # the stems have no free sizes
_MOST_NAMED = 6  # tensors in one message; the rest is counted


def parameter_count(config: ModelConfig) -> int:
    """Return the number of values in the state dict of `SpectrogramViT(config)` without building it."""
    c = config
    inner = c.heads * c.head_dim
    embedding = 2 * c.patch_dim + (c.patch_dim + 1) * c.dim + 2 * c.dim
    attention = 2 * c.dim + 3 * c.dim * inner + (inner + 1) * c.dim
    mlp = 2 * c.dim + (c.dim + 1) * c.mlp_dim + (c.mlp_dim + 1) * c.dim
    head = 2 * c.dim + (c.dim + 1) * c.num_classes
    return _STEM_VALUES[c.stem] + embedding + c.dim + c.depth * (attention + mlp) + head


def require_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes of two state dicts.

    Raises:
        WeightsError: they differ; the message lists missing, unexpected and wrongly shaped tensors.
    """
    shared = [name for name in wanted if name in found]
    faults = {
        "missing": [f"{name} {list(wanted[name].shape)}" for name in wanted if name not in found],
        "unexpected": [f"{name} {list(found[name].shape)}" for name in found if name not in wanted],
        "wrongly shaped": [
            f"{name} {list(found[name].shape)} instead of {list(wanted[name].shape)}"
            for name in shared
            if found[name].shape != wanted[name].shape
        ],
    }
    listed = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if listed:
        raise WeightsError(f"{where}: the tensors are not those of the network it is meant for: {'; '.join(listed)}")


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Look for values that are not numbers.

    Raises:
        WeightsError: a tensor is not floating point, or holds NaN or what is infinite in float32.
    """
    bad = [n for n, tensor in tensors.items() if not tensor.is_floating_point() or not tensor.float().isfinite().all()]
    if bad:
        raise WeightsError(
            f"{where}: {len(bad)} tensors hold NaN, infinite or no floating-point values: {_some(bad)}: "
            "take an undamaged file, or train again"
        )


def _some(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
