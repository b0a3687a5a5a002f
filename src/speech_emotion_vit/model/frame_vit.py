"""The network of ``base`` and ``small``: a vision transformer whose patches are the frames of a log-Mel image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .config import FRAME_STRIDE, STATISTICS_EPSILON, FrameViTConfig
from .layers import MLP, Attention

_NORM_EPSILON = 1e-5  # added to a deviation before something is divided by it


class FrameFeatures(NamedTuple):
    """What `FrameViT.forward_features` returns."""

    embedding: Tensor
    """What the head reads, `[batch, embedding_dim]`: of every pooled block mean and deviation over time."""
    tokens: tuple[Tensor, ...]
    """The output of the stem, then that of every block, each `[batch, tokens, dim]`: 50 tokens a second."""
    real: Tensor | None
    """Which tokens belong to the clip, `[batch, tokens]`; None: all of them."""


class FrameBlock(nn.Module):
    """Depthwise convolution over time, attention, MLP, each added to its input."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, taps: int) -> None:
        super().__init__()
        self.convolution: nn.Conv1d | None = None
        if taps:
            self.convolution = nn.Conv1d(dim, dim, taps, padding=taps // 2, groups=dim)
            nn.init.zeros_(self.convolution.weight)  # a block begins as attention and MLP alone
            nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]  # not None
        self.attention = Attention(dim, heads, dim // heads, bias=True)
        self.mlp = MLP(dim, mlp_dim)

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """Return `[batch, tokens, dim]`; `real` `[batch, tokens]` says which tokens there are."""
        tokens = self.convolved(tokens, real)
        tokens = tokens + self.attention(tokens, key_bias(real, tokens))
        mixed: Tensor = tokens + self.mlp(tokens)
        return mixed

    def convolved(self, tokens: Tensor, real: Tensor | None) -> Tensor:
        """Return what attention reads, `[batch, tokens, dim]`."""
        if self.convolution is None:
            return tokens
        heard = tokens if real is None else tokens * real[:, :, None]
        mixed: Tensor = tokens + self.convolution(heard.transpose(1, 2)).transpose(1, 2)
        return mixed


class FrameViT(nn.Module):
    """Vision transformer on the frames of a log-Mel image; without positional encoding.

    Two convolutions over time turn whole frequency columns into tokens, every other frame one; blocks of a depthwise
    convolution, attention and an MLP follow; the head reads mean and standard deviation over time of some blocks'
    outputs. Any length is possible, and what lies behind a clip changes nothing.

    Args:
        config: the shape; `FrameViTConfig.base` and `small` give those of the models of these names.
    """

    def __init__(self, config: FrameViTConfig) -> None:
        super().__init__()
        self.config = c = config
        self.stem = nn.ModuleList(
            (
                nn.Conv1d(c.n_mels, c.stem, 3, padding=1),
                nn.Conv1d(c.stem, c.dim, 3, padding=1, stride=FRAME_STRIDE),
            )
        )
        self.blocks = nn.ModuleList(FrameBlock(c.dim, c.heads, c.mlp_dim, c.taps) for _ in range(c.depth))
        self.head: nn.Module = nn.Linear(c.embedding_dim, c.num_classes)
        if c.head_hidden:
            self.head = nn.Sequential(
                nn.Linear(c.embedding_dim, c.head_hidden), nn.GELU(), nn.Linear(c.head_hidden, c.num_classes)
            )

    def tokenize(self, image: Tensor, frames: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the tokens `[batch, tokens, dim]` of the stem, and which of them are real, `[batch, tokens]`.

        Args:
            image: as in `forward`.
            frames: as in `forward`.

        Raises:
            ConfigError: the image is not of the configured height.
        """
        if image.ndim != 4 or tuple(image.shape[1:3]) != (1, self.config.n_mels) or not image.shape[3]:
            raise ConfigError(f"the network takes [batch, 1, {self.config.n_mels}, frames], not {list(image.shape)}")
        values = image[:, 0]
        width = values.shape[2]
        first, second = self.stem
        if frames is None or (frames.device.type == "cpu" and bool((frames >= width).all())):
            values = nn.functional.gelu(first(values))
            return nn.functional.gelu(second(values)).transpose(1, 2), None
        inside = torch.arange(width, device=frames.device) < frames[:, None]  # [batch, frames]
        mask = inside[:, None].to(values.dtype)
        values = nn.functional.gelu(first(values * mask)) * mask
        return nn.functional.gelu(second(values)).transpose(1, 2), inside[:, ::FRAME_STRIDE]

    def forward_features(self, image: Tensor, frames: Tensor | None = None) -> FrameFeatures:
        """Return what stem and blocks make of images; the arguments are those of `forward`."""
        tokens, real = self.tokenize(image, frames)
        outputs = [tokens]
        for block in self.blocks:
            outputs.append(block(outputs[-1], real))
        return FrameFeatures(self.pool([outputs[number] for number in self.config.pooled], real), tuple(outputs), real)

    def pool(self, outputs: list[Tensor], real: Tensor | None) -> Tensor:
        """Return the embedding `[batch, embedding_dim]` of the outputs `[batch, tokens, dim]` of the pooled blocks.

        Mean and standard deviation over the real tokens, each normalised over its own values: their scale is that of
        the network, and tells nothing of the clip.
        """
        parts = []
        for tokens in (tokens.float() for tokens in outputs):  # sums of squares are too much for half precision
            share = torch.ones_like(tokens[:, :, :1]) if real is None else real[:, :, None].to(tokens.dtype)
            share = share / share.sum(dim=1, keepdim=True)
            mean = (tokens * share).sum(dim=1)
            variance = ((tokens - mean[:, None]).square() * share).sum(dim=1)
            parts += [mean, (variance + STATISTICS_EPSILON).sqrt()]
        values = torch.stack(parts, dim=1)
        deviation = values.std(dim=2, correction=0, keepdim=True)
        normed = (values - values.mean(dim=2, keepdim=True)) / (deviation + _NORM_EPSILON)
        return normed.flatten(1).to(outputs[0].dtype)

    def embed(self, image: Tensor, frames: Tensor | None = None) -> Tensor:
        """Return the embedding `[batch, embedding_dim]`; the arguments are those of `forward`."""
        return self.forward_features(image, frames).embedding

    def forward(self, image: Tensor, frames: Tensor | None = None) -> Tensor:
        """Return logits `[batch, num_classes]`.

        Args:
            image: `[batch, 1, n_mels, frames]`, values in 0..1, of any width.
            frames: how many columns of each belong to the clip, `[batch]`, at least 1; None is all.
        """
        logits: Tensor = self.head(self.embed(image, frames))
        return logits


def key_bias(real: Tensor | None, tokens: Tensor) -> Tensor | None:
    """Return what is added to the logits of every key: minus infinity where there is no token."""
    return None if real is None else torch.where(real, 0.0, float("-inf")).to(tokens.dtype)
