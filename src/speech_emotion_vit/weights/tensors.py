"""State dicts are compared with the network they are meant for before anything is loaded, or even allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..model.config import STEM_CHANNELS, FrameViTConfig, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

_MOST_NAMED = 6  # tensors in one message; the rest is counted


def tensor_shapes(config: ModelConfig | FrameViTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes in the state dict of `build_network(config)` without building it."""
    shapes = _Shapes()
    if isinstance(config, FrameViTConfig):
        _frame_vit(shapes, config)
    else:
        _spectrogram_vit(shapes, config)
    if isinstance(config, FrameViTConfig) and config.head_hidden:
        shapes.linear("head.0", config.embedding_dim, config.head_hidden)
        shapes.linear("head.2", config.head_hidden, config.num_classes)
    else:
        shapes.linear("head", config.embedding_dim, config.num_classes)
    return shapes


class _Shapes(dict[str, tuple[int, ...]]):
    def norm(self, name: str, size: int) -> None:
        self.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    def linear(self, name: str, inputs: int, outputs: int) -> None:
        self.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def convolution(self, name: str, inputs: int, outputs: int, *kernel: int) -> None:
        self.update({f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)})

    def block(self, name: str, dim: int, inner: int, mlp_dim: int) -> None:
        """Add attention and MLP, but for a bias of queries, keys and values."""
        self.norm(f"{name}.attention.norm", dim)
        self[f"{name}.attention.qkv.weight"] = (3 * inner, dim)
        self.linear(f"{name}.attention.projection", inner, dim)
        self.norm(f"{name}.mlp.norm", dim)
        self.linear(f"{name}.mlp.hidden", dim, mlp_dim)
        self.linear(f"{name}.mlp.output", mlp_dim, dim)


def _spectrogram_vit(shapes: _Shapes, c: ModelConfig) -> None:
    shapes["cls_token"] = (1, 1, c.dim)
    for index, (before, after) in enumerate(pairwise(STEM_CHANNELS if c.stem == "conv6" else ())):
        shapes.convolution(f"stem.convolutions.{index}", before, after, 3, 3)
    shapes.norm("patch_embedding.input_norm", c.patch_dim)
    shapes.linear("patch_embedding.projection", c.patch_dim, c.dim)
    shapes.norm("patch_embedding.output_norm", c.dim)
    for index in range(c.depth):
        shapes.block(f"blocks.{index}", c.dim, c.heads * c.head_dim, c.mlp_dim)
    shapes.norm("norm", c.dim)


def _frame_vit(shapes: _Shapes, c: FrameViTConfig) -> None:
    shapes.convolution("stem.0", c.n_mels, c.stem, 3)
    shapes.convolution("stem.1", c.stem, c.dim, 3)
    for index in range(c.depth):
        if c.taps:
            shapes.convolution(f"blocks.{index}.convolution", 1, c.dim, c.taps)
        shapes.block(f"blocks.{index}", c.dim, c.dim, c.mlp_dim)
        shapes[f"blocks.{index}.attention.qkv.bias"] = (3 * c.dim,)


def parameter_count(config: ModelConfig | FrameViTConfig) -> int:
    """Return the number of values in the state dict of `build_network(config)` without building it."""
    return sum(map(math.prod, tensor_shapes(config).values()))


def require_shapes(found: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]], where: str) -> None:
    """Compare names and shapes of two state dicts.

    Raises:
        WeightsError: they differ; the message lists missing, unexpected and wrongly shaped tensors.
    """
    shared = [name for name in wanted if name in found]
    faults = {
        "missing": [f"{name} {list(wanted[name])}" for name in wanted if name not in found],
        "unexpected": [f"{name} {list(found[name])}" for name in found if name not in wanted],
        "wrongly shaped": [
            f"{name} {list(found[name])} instead of {list(wanted[name])}"
            for name in shared
            if tuple(found[name]) != tuple(wanted[name])
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
        raise not_finite(bad, where)


def not_finite(names: list[str], where: str) -> WeightsError:
    """Return the error that says which tensors hold what are no numbers."""
    return WeightsError(
        f"{where}: {len(names)} tensors hold NaN, infinite or no floating-point values: {_some(names)}: "
        "take an undamaged file, or train again"
    )


def _some(names: list[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
