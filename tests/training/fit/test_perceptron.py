"""A head with a hidden layer."""

from __future__ import annotations

import torch
from torch import nn

from speech_emotion_vit.training.fit.perceptron import train_perceptron


def head(inputs: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.GELU(), nn.Linear(64, classes))


def test_it_tells_what_no_plane_does() -> None:
    """Whether two groups of inputs have the same sign."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (2000, 2), generator=generator) * 2 - 1
    values = signs.repeat_interleave(20, dim=1) + 0.5 * torch.randn(2000, 40, generator=generator)
    targets = (signs[:, 0] == signs[:, 1]).long()
    trained = head(40, 2)
    train_perceptron(trained, values, targets, torch.ones(2000), None, 0.5, seed=0)
    with torch.no_grad():
        assert float((trained(values).argmax(dim=1) == targets).float().mean()) > 0.9


def test_a_label_that_was_not_asked_for_is_not_learnt_as_absent() -> None:
    """Two corpora, each with two of three labels: what is 1 in both must not be pushed below what one cannot say."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([0, 1] * 300 + [1, 2] * 300)
    values = nn.functional.one_hot(targets, 3).float().repeat_interleave(4, dim=1)
    values = 2 * values + 0.3 * torch.randn(values.shape, generator=generator)
    mask = torch.tensor([[True, True, False]] * 600 + [[False, True, True]] * 600)
    trained = head(12, 3)
    train_perceptron(trained, values, targets, torch.ones(1200), mask, 0.5, seed=0)
    with torch.no_grad():
        logits = trained(values)
    assert float((logits.argmax(dim=1) == targets).float().mean()) > 0.95
    assert float(logits.abs().max()) < 100  # finite, and nothing of the value for the impossible


def test_weights_say_how_often_a_row_is_seen() -> None:
    values = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1] * 200)  # nothing to tell: only how often each is seen
    trained = head(8, 2)
    train_perceptron(trained, values, targets, torch.tensor([9.0, 1.0] * 200), None, 0.5, seed=0)
    with torch.no_grad():
        assert float((trained(values).argmax(dim=1) == 0).float().mean()) > 0.9


def test_the_same_seed_gives_the_same_head() -> None:
    values = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1] * 50)
    found = [head(8, 2) for _ in range(2)]
    for each in found:
        train_perceptron(each, values, targets, torch.ones(100), None, 0.5, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(*(each.state_dict().values() for each in found), strict=True))
