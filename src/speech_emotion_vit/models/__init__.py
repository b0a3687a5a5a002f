"""The networks."""

from .vit import Features, SpectrogramViT

__all__ = ["Features", "SpectrogramViT"]
