"""The network: a vision transformer on vertically long patches. Teacher and student are one class, two configs."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .config import STEM_CHANNELS, ModelConfig
from .layers import Block


class ConvStem(nn.Module):
    """Six 3x3 convolutions at full resolution, each with InstanceNorm (no affine) and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1) for inputs, outputs in pairwise(STEM_CHANNELS)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return `[batch, 1, height, width]` of the same shape."""
        for convolution in self.convolutions:
            image = nn.functional.gelu(nn.functional.instance_norm(convolution(image)))
        return image


def coordinate_channels(height: int, width: int) -> Tensor:
    """Return `[1, 2, height, width]`: the row, then the column, each from -1 to 1 ("image coordinate encoding")."""
    rows = torch.linspace(-1.0, 1.0, height)[:, None].expand(height, width)
    columns = torch.linspace(-1.0, 1.0, width)[None, :].expand(height, width)
    return torch.stack((rows, columns)).unsqueeze(0)


class Features(NamedTuple):
    """What `SpectrogramViT.forward_features` returns, after the final LayerNorm."""

    embedding: Tensor
    """What the head reads and what distillation matches: the CLS token `[batch, dim]`."""
    tokens: Tensor
    """The patch tokens `[batch, patches, dim]`."""


class PatchEmbedding(nn.Module):
    """Flattened patches to tokens: LayerNorm, Linear, LayerNorm."""

    def __init__(self, patch_dim: int, dim: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(patch_dim)
        self.projection = nn.Linear(patch_dim, dim)
        self.output_norm = nn.LayerNorm(dim)

    def forward(self, patches: Tensor) -> Tensor:
        """Return `[batch, patches, dim]` of `[batch, patches, patch_dim]`."""
        tokens: Tensor = self.output_norm(self.projection(self.input_norm(patches)))
        return tokens


class SpectrogramViT(nn.Module):
    """Vision transformer on a log-Mel image (Kim & Lee, IEEE Access 2024).

    An optional convolutional stem and optional coordinate channels (the teacher has both, the student neither), a
    patch embedding, pre-norm transformer blocks over a CLS token and the patches, and one linear head on the CLS
    token. There is no positional encoding: without stem and coordinates the output is exactly
    invariant to any permutation of the patches.

    Args:
        config: the shape; `ModelConfig.student` and `ModelConfig.teacher` are the paper's.
    """

    coordinates: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvStem() if config.stem == "conv6" else None
        self.register_buffer(
            "coordinates",
            coordinate_channels(config.image_height, config.image_width) if config.coordinates else None,
            persistent=False,
        )
        self.patch_embedding = PatchEmbedding(config.patch_dim, config.dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.dim))
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.head_dim, config.mlp_dim) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.embedding_dim, config.num_classes)

    def patches(self, image: Tensor) -> Tensor:
        """Return flattened patches `[batch, patches, patch_dim]` of `[batch, 1, height, width]`.

        Values are ordered row, column within the patch, channel, the channel fastest.

        Raises:
            ConfigError: the image is not of the configured size.
        """
        c = self.config
        if image.ndim != 4 or tuple(image.shape[1:]) != (1, c.image_height, c.image_width):
            raise ConfigError(
                f"the network takes [batch, 1, {c.image_height}, {c.image_width}], not {list(image.shape)}"
            )
        if self.stem is not None:
            image = self.stem(image)
        if self.coordinates is not None:
            coordinates = self.coordinates.to(image.dtype).expand(image.shape[0], -1, -1, -1)
            image = torch.cat((image, coordinates), dim=1)
        rows, columns = c.image_height // c.patch_height, c.image_width // c.patch_width
        grid = image.view(-1, c.channels, rows, c.patch_height, columns, c.patch_width)
        return grid.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, c.patch_dim)

    def tokenize(self, image: Tensor) -> Tensor:
        """Return what goes into the first block, `[batch, 1 + patches, dim]`: the CLS token, then the patches'."""
        cls_token = self.cls_token.expand(image.shape[0], -1, -1)
        return torch.cat((cls_token, self.patch_embedding(self.patches(image))), dim=1)

    def forward_features(self, image: Tensor) -> Features:
        """Return the features of images `[batch, 1, height, width]` with values in 0..1."""
        tokens = self.tokenize(image)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return Features(embedding=tokens[:, 0], tokens=tokens[:, 1:])

    def embed(self, image: Tensor, frames: Tensor | None = None) -> Tensor:
        """Return the embedding `[batch, embedding_dim]` of `[batch, 1, height, width]`.

        `frames` is for a `FrameViT`; this network was trained on padded images, and padding is a part of what it sees.
        """
        return self.forward_features(image).embedding

    def forward(self, image: Tensor) -> Tensor:
        """Return logits `[batch, num_classes]` of images `[batch, 1, height, width]` with values in 0..1."""
        logits: Tensor = self.head(self.forward_features(image).embedding)
        return logits
