"""What the CLS token looked at: attention rollout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from .layers import Block
from .vit import SpectrogramViT, constant


def rollout(network: SpectrogramViT, image: Tensor) -> Tensor:
    """Return the attention of the CLS token over the columns `[batch, width]` of images `[batch, 1, height, width]`.

    Attention rollout (Abnar & Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, eq. 1): the mean over
    heads of every block, averaged with the identity for the residual, multiplied through the blocks. The weight that
    stays on the CLS token is left out, and the rest sums to 1.

    Padding is collapsed: one token stands for all its columns in every product, which is exact because they are
    equal, and its weight is divided among them at the end.
    """
    c = network.config
    batch, total = len(image), (c.image_height // c.patch_height) * (c.image_width // c.patch_width)
    patches, key_bias = network.tokenize(image)
    token_of_patch = torch.arange(total, device=image.device).expand(batch, -1)
    copies = torch.ones(batch, total, device=image.device)
    if c.collapsible:
        real = ~constant(network.patches(image))
        count = real.sum(dim=1, keepdim=True)
        token_of_patch = torch.where(real, real.cumsum(dim=1) - 1, count)
        copies = torch.where(real, 1.0, (total - count).float())
    elif c.stem == "strided":  # padding has no tokens
        copies = torch.where(token_of_patch < patches.shape[1], 1.0, torch.inf)
        token_of_patch = token_of_patch.clamp(max=patches.shape[1] - 1)
    if key_bias is not None:
        key_bias = nn.functional.pad(key_bias, (1, 0))
    tokens = torch.cat((network.cls_token.expand(batch, -1, -1), network.patch_embedding(patches)), dim=1)
    flow = torch.zeros(batch, tokens.shape[1], tokens.shape[1], device=tokens.device)
    flow.diagonal(dim1=1, dim2=2).fill_(1.0)
    for block in cast("Iterator[Block]", iter(network.blocks)):
        mixed = block.attention.weights(tokens, key_bias).mean(dim=1)
        mixed.diagonal(dim1=1, dim2=2).add_(1.0)
        flow = (mixed / 2) @ flow
        tokens = block(tokens, key_bias)
    weights = flow[:, 0, 1:].gather(1, token_of_patch) / copies
    weights = weights / weights.sum(dim=1, keepdim=True)
    columns = weights.view(batch, -1, c.image_width // c.patch_width).sum(dim=1)
    return columns.repeat_interleave(c.patch_width, dim=1) / c.patch_width
