from __future__ import annotations

import math

import pytest
import torch

from speech_emotion_vit.training.data.rows import restrict
from speech_emotion_vit.training.fit.losses import cross_entropy, feature_distance, soft_cross_entropy


def test_a_class_that_a_clip_cannot_have_gets_no_target_and_no_probability() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0, 9.0], [1.5, 0.0, -0.5, 0.25]])
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    expected = sum(
        cross_entropy(logits[i : i + 1, : 3 + i], targets[i : i + 1, : 3 + i], label_smoothing=0.3) for i in range(2)
    )
    assert cross_entropy(logits, targets, label_smoothing=0.3, mask=mask) == pytest.approx(expected / 2)
    assert restrict(logits, mask).softmax(dim=1)[0, 3] == 0
    assert restrict(logits, None) is logits


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4, 3/4
    target = torch.tensor([[0.0, 1.0]])
    assert float(cross_entropy(logits, target)) == pytest.approx(math.log(4 / 3))
    smooth = 0.9 * math.log(4 / 3) + 0.1 * (math.log(4) + math.log(4 / 3)) / 2
    assert float(cross_entropy(logits, target, label_smoothing=0.1)) == pytest.approx(smooth)
    assert float(feature_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]]))) == 2
    assert float(soft_cross_entropy(logits, logits.softmax(dim=1), temperature=1.0)) == pytest.approx(
        -(math.log(1 / 4) / 4 + 3 * math.log(3 / 4) / 4)
    )
