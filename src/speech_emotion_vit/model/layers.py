"""The transformer block, pre-norm attention and MLP, and the pooling behind the last one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import STATISTICS_EPSILON


class Attention(nn.Module):
    """Multi-head self-attention with its LayerNorm in front; queries, keys and values carry a bias if asked for."""

    def __init__(self, dim: int, heads: int, head_dim: int, *, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=bias)
        self.projection = nn.Linear(heads * head_dim, dim)

    def forward(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return `[batch, tokens, dim]`.

        `key_bias` `[batch, tokens]` is added to every query's logit of that key: the logarithm of how many equal
        tokens the key stands for, or minus infinity for a key that is not there.
        """
        batch, length, _ = tokens.shape
        query, key, value = self._heads(tokens)
        mask = None if key_bias is None else key_bias[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, length, -1))
        return projected

    def first(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return the first row of `forward`, `[batch, 1, dim]`, for a fraction of the operations.

        With one query, keys and values need not be computed: q . (W k) is (W' q) . k, and likewise for the values.
        """
        normed = self.norm(tokens)
        to_query, to_key, to_value = self.qkv.weight.view(3, self.heads, -1, normed.shape[2])  # [heads, head_dim, dim]
        query = normed[:, 0] @ to_query.transpose(1, 2) * to_query.shape[1] ** -0.5  # [heads, batch, head_dim]
        logits = (query @ to_key).transpose(0, 1) @ normed.transpose(1, 2)  # [batch, heads, tokens]
        if key_bias is not None:
            logits = logits + key_bias[:, None, :]
        attended = (logits.softmax(dim=-1) @ normed).transpose(0, 1) @ to_value.transpose(1, 2)
        projected: Tensor = self.projection(attended.transpose(0, 1).flatten(1).unsqueeze(1))
        return projected

    def weights(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return how much every token attends to every other, `[batch, heads, tokens, tokens]`; rows sum to 1."""
        query, key, _ = self._heads(tokens)
        logits = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if key_bias is not None:
            logits = logits + key_bias[:, None, None, :]
        weights: Tensor = logits.softmax(dim=-1)
        return weights

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each `[batch, heads, tokens, head_dim]`."""
        batch, length, _ = tokens.shape
        qkv = self.qkv(self.norm(tokens)).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return query, key, value


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them and a LayerNorm in front."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return `[batch, tokens, dim]`."""
        mixed: Tensor = self.output(nn.functional.gelu(self.hidden(self.norm(tokens))))
        return mixed


class Block(nn.Module):
    """Attention, then MLP, each added to its input."""

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention = Attention(dim, heads, head_dim)
        self.mlp = MLP(dim, mlp_dim)

    def forward(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return `[batch, tokens, dim]`; `key_bias` as in `Attention`."""
        tokens = tokens + self._thinned(self.attention(tokens, key_bias))
        mixed: Tensor = tokens + self._thinned(self.mlp(tokens))
        return mixed

    def first(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return the first row of `forward`, `[batch, 1, dim]`."""
        first = tokens[:, :1] + self._thinned(self.attention.first(tokens, key_bias))
        mixed: Tensor = first + self._thinned(self.mlp(first))
        return mixed

    def _thinned(self, branch: Tensor) -> Tensor:
        return nn.functional.dropout(branch, self.dropout, self.training) if self.dropout else branch


def pooling_weights(cls_token: Tensor, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Return the share of every token in `attentive_statistics`, `[batch, 1, tokens]`; it sums to 1."""
    logits = cls_token @ tokens.transpose(1, 2) * tokens.shape[2] ** -0.5
    if key_bias is not None:
        logits = logits + key_bias[:, None, :]
    weights: Tensor = logits.softmax(dim=-1)
    return weights


def attentive_statistics(cls_token: Tensor, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Return the CLS token, and mean and standard deviation of the tokens by their likeness to it, `[batch, 3 * dim]`.

    After Okabe et al., Attentive Statistics Pooling for Deep Speaker Embedding, Interspeech 2018, with the CLS token in
    place of a learnt query.

    Args:
        cls_token: `[batch, 1, dim]`.
        tokens: `[batch, tokens, dim]`.
        key_bias: `[batch, tokens]` as in `Attention`.
    """
    weights = pooling_weights(cls_token, tokens, key_bias)
    return torch.cat((cls_token, *_mean_and_deviation(weights, tokens)), dim=2).squeeze(1)


def statistics(patches: Tensor, key_bias: Tensor | None = None) -> Tensor:
    """Return mean and standard deviation `[batch, 2 * patch_dim]` of patches `[batch, patches, patch_dim]`.

    `key_bias` `[batch, patches]` is the logarithm of how often each one counts, as in `Attention`.
    """
    weights = (torch.zeros_like(patches[..., 0]) if key_bias is None else key_bias).softmax(dim=-1)
    return torch.cat(_mean_and_deviation(weights[:, None, :], patches), dim=2).squeeze(1)


def _mean_and_deviation(weights: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    mean = weights @ tokens
    return mean, (weights @ (tokens - mean).square() + STATISTICS_EPSILON).sqrt()
