"""Made-up weights in the layout that the paper's authors published."""

from __future__ import annotations

import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

State = dict[str, torch.Tensor]


def values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(f"1:{key}".encode()))
    return generator.standard_normal(shape).astype(np.float32)


def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def official_shapes(kind: str, classes: int) -> dict[str, tuple[int, ...]]:
    """The published layout, written out independently of the package's table."""
    patch, depth = (384, 6) if kind == "teacher" else (128, 3)
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, 256)}
    if kind == "teacher":
        widths = (1, 16, 32, 64, 32, 16, 1)
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            name = f"conv_stem.{3 * index}"
            shapes |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
    shapes |= norm("to_patch_embedding.1", patch) | linear("to_patch_embedding.2", 256, patch)
    shapes |= norm("to_patch_embedding.3", 256)
    for index in range(depth):
        layer = f"transformer.layers.{index}"
        shapes |= norm(f"{layer}.0.norm", 256) | {f"{layer}.0.to_qkv.weight": (960, 256)}
        shapes |= linear(f"{layer}.0.to_out.0", 256, 320) | norm(f"{layer}.1.net.0", 256)
        shapes |= linear(f"{layer}.1.net.1", 256, 256) | linear(f"{layer}.1.net.4", 256, 256)
    return shapes | norm("transformer.norm", 256) | linear("mlp_head", classes, 256)


NORM_WEIGHTS = ("norm.weight", "net.0.weight", "to_patch_embedding.1.weight", "to_patch_embedding.3.weight")


def official_state(kind: str, classes: int = 6) -> State:
    state = {}
    for key, shape in official_shapes(kind, classes).items():
        base, scale = (1.0, 0.1) if key.endswith(NORM_WEIGHTS) else (0.0, 0.05)
        state[key] = torch.from_numpy(base + scale * values(key, shape)).float()
    return state


def save(path: Path, state: object, **more: Any) -> Path:
    torch.save({"model_state_dict": state, **more}, path)
    return path
