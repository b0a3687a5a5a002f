"""From a configuration to its network."""

from __future__ import annotations

from typing import TypeAlias

from .config import FrameViTConfig, ModelConfig
from .frame_vit import FrameViT
from .vit import SpectrogramViT

Network: TypeAlias = "SpectrogramViT | FrameViT"


def build_network(config: ModelConfig | FrameViTConfig) -> Network:
    """Return the network of a configuration, with initial values."""
    return FrameViT(config) if isinstance(config, FrameViTConfig) else SpectrogramViT(config)
