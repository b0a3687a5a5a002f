"""What an answer looked at: attention rollout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from .build import Network
from .config import FRAME_STRIDE
from .frame_vit import FrameBlock, FrameViT
from .layers import Block, pooling_weights
from .vit import SpectrogramViT, constant


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
    stays on the CLS token is left out, and the rest sums to 1. Where the head also reads mean and deviation of the
    tokens, these flow on by their shares in them, and the parts of the embedding count alike.

    Where padding is collapsed, one token stands for all its columns in every product, which is exact because they are
    equal, and its weight is divided among them at the end.
    """
    c = network.config
    patches, key_bias = network.tokenize(image)
    tokens = torch.cat((network.cls_token.expand(len(image), -1, -1), network.patch_embedding(patches)), dim=1)
    if key_bias is not None:
        key_bias = nn.functional.pad(key_bias, (1, 0))
    flow = torch.eye(tokens.shape[1], dtype=tokens.dtype, device=tokens.device).expand(len(image), -1, -1)
    identity = flow
    for block in cast("Iterator[Block]", iter(network.blocks)):
        attention = block.attention.weights(tokens, key_bias).mean(dim=1)
        flow = (attention + identity) / 2 @ flow
        tokens = block(tokens, key_bias)
    weights = flow[:, 0, 1:]
    if c.pooling != "cls":  # the head reads the CLS token and two sums over tokens
        bias = torch.zeros_like(tokens[:, 1:, 0]) if key_bias is None else key_bias[:, 1:]
        cls_token, normed = network.norm(tokens).split([1, tokens.shape[1] - 1], dim=1)
        weights = weights + 2 * (pooling_weights(cls_token, normed, bias) @ flow[:, 1:, 1:])[:, 0]
        if c.pools_stem:  # and two over what came before the blocks, and maybe contours, in which all count alike
            weights = weights + (3 if c.contour_dim else 2) * bias.softmax(dim=-1)
    if c.collapsible:
        real = ~constant(network.patches(image))
        count = real.sum(dim=1, keepdim=True)
        token = torch.where(real, real.cumsum(dim=1) - 1, count)
        weights = weights.gather(1, token) / torch.where(real, 1, real.shape[1] - count)
    weights = weights / weights.sum(dim=1, keepdim=True)
    if c.stem == "strided":  # padding is no token at all
        weights = nn.functional.pad(weights, (0, c.image_width // c.patch_width - weights.shape[1]))
    columns = weights.view(len(image), -1, c.image_width // c.patch_width).sum(dim=1)
    return columns.repeat_interleave(c.patch_width, dim=1) / c.patch_width
