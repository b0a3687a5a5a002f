"""The network: a vision transformer on vertically long patches. Teacher and student are one class, two configs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .config import ModelConfig
from .contours import contour_statistics
from .layers import Block, attentive_statistics, statistics
from .stem import ConvStem, StridedStem, coordinate_channels


class Features(NamedTuple):
    """What `SpectrogramViT.forward_features` returns, after the final LayerNorm."""

    embedding: Tensor
    """What the head reads and what distillation matches, `[batch, embedding_dim]`: the CLS vector, and where the
    network pools statistics, mean and deviation of the tokens behind it, maybe of the stem's output, and maybe
    `contour_statistics` last."""
    tokens: Tensor
    """The patch tokens `[batch, patches, dim]`."""


def constant(patches: Tensor) -> Tensor:
    """Return which patches have the same value throughout, `[batch, patches]` of `[batch, patches, patch_dim]`."""
    return patches.amax(dim=-1) == patches.amin(dim=-1)  # a patch with a NaN is not


def _filled_columns(image: Tensor) -> Tensor:
    """Return how many columns of images `[batch, 1, height, width]` end with the last that is not padding, `[batch]`.

    At least one: of silence, the first.
    """
    filled = image.amax(dim=(1, 2)) > 0
    position = torch.arange(1, image.shape[3] + 1, device=image.device)
    return (filled * position).amax(dim=1).clamp(min=1)


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
    token or on statistics of all. There is no positional encoding: without stem and coordinates the output is exactly
    invariant to any permutation of the patches.

    Args:
        config: the shape; `ModelConfig.student` and `ModelConfig.teacher` are the paper's.
    """

    coordinates: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stem: ConvStem | StridedStem | None = None
        if config.stem == "conv6":
            self.stem = ConvStem()
        elif config.stem == "strided":
            self.stem = StridedStem(config.patch_width)
        self.register_buffer(
            "coordinates",
            coordinate_channels(config.image_height, config.image_width) if config.coordinates else None,
            persistent=False,
        )
        self.patch_embedding = PatchEmbedding(config.patch_dim, config.dim)
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.dim))
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.head_dim, config.mlp_dim, config.dropout)
            for _ in range(config.depth)
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
        self._require_image(image)
        if c.stem == "strided":
            raise ConfigError("a strided stem makes tokens, not patches of the image: use tokenize")
        if self.stem is not None:
            image = self.stem(image)
        if self.coordinates is not None:
            coordinates = self.coordinates.to(image.dtype).expand(image.shape[0], -1, -1, -1)
            image = torch.cat((image, coordinates), dim=1)
        rows, columns = c.image_height // c.patch_height, c.image_width // c.patch_width
        grid = image.view(-1, c.channels, rows, c.patch_height, columns, c.patch_width)
        return grid.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, c.patch_dim)

    def _require_image(self, image: Tensor) -> None:
        c = self.config
        if image.ndim != 4 or tuple(image.shape[1:]) != (1, c.image_height, c.image_width):
            raise ConfigError(
                f"the network takes [batch, 1, {c.image_height}, {c.image_width}], not {list(image.shape)}"
            )

    def tokenize(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the fewest patches `[batch, patches, patch_dim]` and their `key_bias` for `forward_patches`.

        Padding is collapsed to one patch where it is one token, and left out altogether behind a strided stem.
        """
        if self.config.stem != "strided":
            patches = self.patches(image)
            return self.collapse(patches) if self.config.collapsible else (patches, None)
        self._require_image(image)
        columns = _filled_columns(image)
        step = self.config.patch_width
        width = -(-int(columns.max()) // step) * step
        features = self.stem(image[..., :width], columns)  # type: ignore[misc]  # not None
        patches = features.permute(0, 3, 1, 2).flatten(2)
        inside = torch.arange(0, width, step, device=image.device) < columns[:, None]
        return patches, torch.where(inside, 0.0, float("-inf")).to(patches.dtype)

    def forward_patches(self, patches: Tensor, key_bias: Tensor | None = None) -> Features:
        """Return the features of flattened patches `[batch, patches, patch_dim]`, without those of contours.

        `key_bias` `[batch, patches]` is the logarithm of how many equal patches each one stands for, minus infinity
        where there is none: the same result as repeating the patches, for fewer operations.
        """
        tokens, key_bias = self._with_cls_token(patches, key_bias)
        for block in self.blocks:
            tokens = block(tokens, key_bias)
        cls_token, tokens = self.norm(tokens).split([1, tokens.shape[1] - 1], dim=1)
        if self.config.pooling == "cls":
            return Features(embedding=cls_token[:, 0], tokens=tokens)
        key_bias = None if key_bias is None else key_bias[:, 1:]
        embedding = attentive_statistics(cls_token, tokens, key_bias)
        if self.config.pools_stem:
            embedding = torch.cat((embedding, statistics(patches, key_bias)), dim=1)
        return Features(embedding=embedding, tokens=tokens)

    def embed_patches(self, patches: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return the `embedding` of `forward_patches` alone, `[batch, embedding_dim]`.

        Where the CLS token is all of it, the last block is computed for that only, a third of all operations less
        with three blocks.
        """
        if self.config.pooling != "cls":
            return self.forward_patches(patches, key_bias).embedding
        tokens, key_bias = self._with_cls_token(patches, key_bias)
        *blocks, last = cast("Iterator[Block]", iter(self.blocks))
        for block in blocks:
            tokens = block(tokens, key_bias)
        embedding: Tensor = self.norm(last.first(tokens, key_bias))[:, 0]
        return embedding

    def _with_cls_token(self, patches: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        cls_token = self.cls_token.expand(patches.shape[0], -1, -1)
        tokens = torch.cat((cls_token, self.patch_embedding(patches)), dim=1)
        return tokens, None if key_bias is None else nn.functional.pad(key_bias, (1, 0))

    def forward_features(self, image: Tensor) -> Features:
        """Return the features of images `[batch, 1, height, width]` with values in 0..1."""
        if self.config.stem == "strided":
            features = self.forward_patches(*self.tokenize(image))
        else:
            features = self.forward_patches(self.patches(image))
        return features._replace(embedding=self._with_contours(features.embedding, image))

    def _with_contours(self, embedding: Tensor, image: Tensor) -> Tensor:
        if not self.config.contour_dim:
            return embedding
        return torch.cat((embedding, contour_statistics(image, _filled_columns(image))), dim=1)

    def collapse(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return fewer patches `[batch, fewer, patch_dim]` and the `key_bias` `[batch, fewer]` that makes up for it.

        LayerNorm makes all constant patches (padding, digital silence) equal, so without stem and coordinates they
        are one and the same token at every layer. One of them is kept, with the logarithm of their number as its bias.
        Of the paper's student's 213.7 million multiply-accumulates, a clip of 1 s needs 51.6, one of 2.5 s 130.1.

        Raises:
            ConfigError: the network has a stem or coordinates, so padding is not one token.
        """
        if not self.config.collapsible:
            raise ConfigError("padding cannot be collapsed in a network with a stem or coordinates")
        real = ~constant(patches)
        total = patches.shape[1]
        count = real.sum(dim=1, keepdim=True)
        kept = min(total, int(count.max()) + 1)
        order = real.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :kept]
        position = torch.arange(kept, device=patches.device)
        key_bias = torch.where(position < count, 0.0, float("-inf"))
        key_bias = torch.where(position == count, (total - count).clamp(min=1).log(), key_bias)
        return patches.gather(1, order.unsqueeze(-1).expand(-1, -1, patches.shape[2])), key_bias.to(patches.dtype)

    def embed(self, image: Tensor, frames: Tensor | None = None) -> Tensor:
        """Return the embedding `[batch, embedding_dim]` of `[batch, 1, height, width]`, with padding collapsed.

        `frames` is for a `FrameViT`; here the image itself says what is padding.
        """
        return self._with_contours(self.embed_patches(*self.tokenize(image)), image)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits `[batch, num_classes]` of images `[batch, 1, height, width]` with values in 0..1."""
        logits: Tensor = self.head(self.forward_features(image).embedding)
        return logits
