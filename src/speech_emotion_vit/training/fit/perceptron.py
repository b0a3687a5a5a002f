"""A head with a hidden layer, trained by cross-entropy on embeddings that stay as they are.

With inputs and hidden values dropped at random and with mixed clips it fits the labels of new voices two points better
than ridge regression, and of other corpora as well (docs/results.md). Some small heads are trained and averaged,
because one alone moves by a point from seed to seed.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..data.rows import restrict

MEMBER_WIDTH = 128  # hidden values of each of the heads that are averaged
STEPS, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 1500, 64, 1e-3, 0.01
MIXUP = 0.4  # both parameters of the beta distribution of the share of a second clip (Zhang et al. 2018)
SMOOTHING = 0.1  # share of a target that all labels have alike


def train_perceptron(
    head: nn.Sequential,
    embeddings: Tensor,
    targets: Tensor,
    weights: Tensor,
    mask: Tensor | None,
    dropout: float,
    seed: int,
) -> None:
    """Train a head in place.

    Args:
        head: linear layer, activation, linear layer.
        embeddings: `[rows, embedding_dim]`, standardised.
        targets: the class of each row `[rows]`.
        weights: how often each row is drawn, relative to the others `[rows]`.
        mask: which labels each row can have `[rows, classes]`; None: all.
        dropout: share of inputs and of hidden values that are dropped in each step.
        seed: of everything random.
    """
    hidden, activation, output = cast("tuple[nn.Linear, nn.GELU, nn.Linear]", tuple(head))
    members = max(1, hidden.out_features // MEMBER_WIDTH)
    members = next(number for number in range(members, 0, -1) if hidden.out_features % number == 0)
    classes, width = output.out_features, hidden.out_features // members
    smoothed = _smoothed(targets, classes, mask)
    inputs: list[nn.Linear] = []
    outputs: list[nn.Linear] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number in range(members):
            inputs.append(nn.Linear(hidden.in_features, width))
            outputs.append(nn.Linear(width, classes))
            member = nn.Sequential(nn.Dropout(dropout), inputs[-1], activation, nn.Dropout(dropout), outputs[-1])
            _train(member, embeddings, smoothed, weights, mask, f"head {number + 1}/{members}")
    with torch.no_grad():
        hidden.weight.copy_(torch.cat([layer.weight for layer in inputs]))
        hidden.bias.copy_(torch.cat([layer.bias for layer in inputs]))
        output.weight.copy_(torch.cat([layer.weight for layer in outputs], dim=1) / members)
        output.bias.copy_(torch.stack([layer.bias for layer in outputs]).mean(dim=0))


def _smoothed(targets: Tensor, classes: int, mask: Tensor | None) -> Tensor:
    """Return probabilities `[rows, classes]`: the true class, and a little of all classes that a row can have."""
    possible = torch.ones((len(targets), classes)) if mask is None else mask.float()
    true = nn.functional.one_hot(targets, classes).float()
    return (1 - SMOOTHING) * true + SMOOTHING * possible / possible.sum(dim=1, keepdim=True)


def _train(
    member: nn.Sequential, embeddings: Tensor, targets: Tensor, weights: Tensor, mask: Tensor | None, title: str
) -> None:
    optimizer = torch.optim.AdamW(member.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    shares = torch.distributions.Beta(MIXUP, MIXUP)
    for _ in tqdm(range(STEPS), desc=title, leave=False, disable=None):
        rows = torch.multinomial(weights, BATCH_SIZE, replacement=True)
        others = rows[torch.randperm(BATCH_SIZE)]
        share = shares.sample((BATCH_SIZE, 1))
        logits = member(share * embeddings[rows] + (1 - share) * embeddings[others])
        either = None if mask is None else mask[rows] | mask[others]
        likely = restrict(logits, either).log_softmax(dim=1)
        loss = -((share * targets[rows] + (1 - share) * targets[others]) * likely).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
