"""The transformer block, pre-norm attention and MLP."""

from __future__ import annotations

from torch import Tensor, nn


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

        `key_bias` `[batch, tokens]` is added to every query's logit of that key: minus infinity for a key that is not
        there.
        """
        batch, length, _ = tokens.shape
        query, key, value = self._heads(tokens)
        mask = None if key_bias is None else key_bias[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        projected: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, length, -1))
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

    def __init__(self, dim: int, heads: int, head_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, head_dim)
        self.mlp = MLP(dim, mlp_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return `[batch, tokens, dim]`."""
        tokens = tokens + self.attention(tokens)
        mixed: Tensor = tokens + self.mlp(tokens)
        return mixed
