"""What an answer looked at: attention rollout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from .build import Network
from .config import FRAME_STRIDE
from .frame_vit import FrameBlock, FrameViT
from .layers import Block
from .vit import SpectrogramViT


def rollout(network: Network, image: Tensor) -> Tensor:
    """Return how much of the answer flows from every column, `[batch, width]`, of images `[batch, 1, height, width]`.

    What the head reads is followed back through the attention of the blocks. Each row sums to 1.
    """
    return _of_frames(network, image) if isinstance(network, FrameViT) else _of_cls_token(network, image)


def _of_frames(network: FrameViT, image: Tensor) -> Tensor:
    """Follow the mean over the tokens of every pooled block.

    Convolutions are left out: they reach 0.15 s to either side.
    """
    tokens, _ = network.tokenize(image)
    identity = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
    flow, weights = identity, identity.new_zeros(1, tokens.shape[1])
    for number, block in enumerate(cast("Iterator[FrameBlock]", iter(network.blocks)), start=1):
        attention = block.attention.weights(block.convolved(tokens, None)).mean(dim=1)
        flow = (attention + identity) / 2 @ flow
        tokens = block(tokens)
        if number in network.config.pooled:
            weights = weights + flow.mean(dim=1)
    columns = weights.repeat_interleave(FRAME_STRIDE, dim=1)[:, : image.shape[3]]
    return columns / columns.sum(dim=1, keepdim=True)


def _of_cls_token(network: SpectrogramViT, image: Tensor) -> Tensor:
    """Return the attention of the CLS token over the columns.

    Attention rollout (Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, eq. 1): the mean over
    heads of every block, averaged with the identity for the residual, multiplied through the blocks. The weight that
    stays on the CLS token is left out, and the rest sums to 1.
    """
    c = network.config
    tokens = network.tokenize(image)
    flow = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device).expand(len(image), -1, -1)
    identity = flow
    for block in cast("Iterator[Block]", iter(network.blocks)):
        flow = (block.attention.weights(tokens).mean(dim=1) + identity) / 2 @ flow
        tokens = block(tokens)
    weights = flow[:, 0, 1:]
    weights = weights / weights.sum(dim=1, keepdim=True)
    columns = weights.view(len(image), -1, c.image_width // c.patch_width).sum(dim=1)
    return columns.repeat_interleave(c.patch_width, dim=1) / c.patch_width
