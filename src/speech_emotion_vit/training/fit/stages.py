"""Stages: each maps a batch to a dict of losses, whose sum is minimised. One loop runs them all.

======== ================================== ==================================
Teacher  `Supervised`                       cross-entropy
Matching `Matching`                         L1 between the CLS features
Student  `Distillation`                     cross-entropy + alpha L1
======== ================================== ==================================
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...model.vit import SpectrogramViT
from ..data.rows import restrict
from .losses import cross_entropy, feature_distance, soft_cross_entropy


class Batch(NamedTuple):
    """What a stage sees of the training data; tensors on one device."""

    images: Tensor
    """`[batch, 1, n_mels, columns]`."""
    targets: Tensor
    """Class probabilities `[batch, classes]`."""
    order: Tensor | None = None
    """Random numbers `[batch, patches]`: the patches with the highest ones survive dropping."""
    reference: Tensor | None = None
    """The teacher's features `[batch, dim]` of these images where they are known already."""
    mask: Tensor | None = None
    """Which classes each clip can have `[batch, classes]`; None: all can have all."""
    clean: Tensor | None = None
    """`images` without noise; None: there is none in them."""

    @property
    def teacher_images(self) -> Tensor:
        """The images that a teacher sees `[batch, 1, n_mels, columns]`: each clip without the noise."""
        return self.images if self.clean is None else self.clean

    def share(self, index: int, number: int) -> Batch:
        """Return every `number`-th row from `index` on."""
        return Batch(*(None if value is None else value[index::number] for value in self))  # type: ignore[arg-type]


def encode(network: SpectrogramViT, images: Tensor, *, drop: float = 0.0, order: Tensor | None = None) -> Tensor:
    """Return the CLS features `[batch, dim]` of `images`, computed on the fewest tokens.

    Padding is collapsed where the network allows it. Of the patches a share `drop` is left out at random: those
    with the lowest `order` `[batch, patches]`; padding keeps its share among what is left.
    """
    if not drop or order is None:
        return network.embed(images)
    if network.config.collapsible:
        return network.forward_patches(*_thin(network.patches(images), drop, order)).embedding
    patches, key_bias = network.tokenize(images)
    kept = max(1, round(patches.shape[1] * (1.0 - drop)))
    order = order[:, : patches.shape[1]]
    if key_bias is not None:  # padding goes first
        order = torch.where(key_bias.isfinite(), order, -1.0)
    chosen = order.topk(kept, dim=1).indices
    key_bias = None if key_bias is None else key_bias.gather(1, chosen)
    patches = patches.gather(1, chosen.unsqueeze(-1).expand(-1, -1, patches.shape[2]))
    return network.forward_patches(patches, key_bias).embedding


def _thin(patches: Tensor, drop: float, order: Tensor) -> tuple[Tensor, Tensor]:
    """Return fewer patches and their `key_bias`: the real ones that come first, and one for all the padding."""
    real = patches.any(dim=-1)
    total = patches.shape[1]
    count = real.sum(dim=1, keepdim=True)
    kept = (count * (1.0 - drop)).ceil().long()
    padding = (total - count) * (1.0 - drop)
    length = min(total, int(kept.max()) + 1)
    best = torch.where(real, order, -1.0).topk(length, dim=1).indices
    position = torch.arange(length, device=patches.device)
    key_bias = torch.where(position < kept, 0.0, float("-inf"))
    key_bias = torch.where((position == kept) & (padding > 0), padding.clamp(min=1e-6).log(), key_bias)
    chosen = patches.gather(1, best.unsqueeze(-1).expand(-1, -1, patches.shape[2]))
    return chosen.masked_fill((position >= kept).unsqueeze(-1), 0.0), key_bias.to(patches.dtype)


class FrozenTeacher:
    """A copy of a network that nothing can train: no module registers it, so no optimiser or ``train()`` finds it.

    Args:
        network: the teacher; it is copied, so that the caller's own keeps its state.
    """

    def __init__(self, network: SpectrogramViT) -> None:
        self._network = copy.deepcopy(network).eval().requires_grad_(False)

    def to(self, device: torch.device) -> FrozenTeacher:
        """Move it to `device` and return it."""
        self._network.to(device)
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the CLS features `[batch, dim]` of all of the image."""
        return encode(self._network, images)

    @torch.no_grad()
    def logits(self, embedding: Tensor) -> Tensor:
        """Return the logits `[batch, classes]` of features `[batch, dim]`."""
        logits: Tensor = self._network.head(embedding)
        return logits

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights."""
        return self._network.state_dict()


class Supervised(nn.Module):
    """Cross-entropy of a network: the teacher's stage, and a student's without a teacher of its own.

    Args:
        network: what is trained.
        drop: share of the patches left out in training.
        label_smoothing: share of the target spread over all classes.
        class_weights: `[classes]` or None.
        teachers: networks whose mean softened answer is a further target; they see all patches.
        soft_weight: weight of that target.
        soft_temperature: what softens answers.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        network: SpectrogramViT,
        *,
        drop: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        teachers: Sequence[FrozenTeacher] = (),
        soft_weight: float = 0.0,
        soft_temperature: float = 2.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.teachers = tuple(teachers)
        self.soft_weight = soft_weight
        self.soft_temperature = soft_temperature
        self.drop = drop
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        embedding = encode(self.network, batch.images, drop=self.drop, order=batch.order)
        losses = {"cross_entropy": self._cross_entropy(embedding, batch)}
        if self.teachers:
            losses["soft_labels"] = self._soft_labels(
                embedding, [teacher.logits(teacher.features(batch.teacher_images)) for teacher in self.teachers], batch
            )
        return losses

    def _soft_labels(self, embedding: Tensor, answers: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the weighted loss against the mean of the teachers' logits `[batch, classes]`, softened first."""
        softened = torch.stack(
            [(restrict(logits.float(), batch.mask) / self.soft_temperature).softmax(dim=1) for logits in answers]
        )
        logits = restrict(self.network.head(embedding), batch.mask)
        return self.soft_weight * soft_cross_entropy(logits, softened.mean(dim=0), temperature=self.soft_temperature)

    def _cross_entropy(self, embedding: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(
            self.network.head(embedding),
            batch.targets,
            label_smoothing=self.label_smoothing,
            class_weights=self.class_weights,
            mask=batch.mask,
        )


class Matching(nn.Module):
    """L1 distance of the student's CLS feature to the teacher's; the student's head is not trained.

    Args:
        network: the student.
        teacher: what it is to imitate.
        drop: share of the student's patches left out in training; the teacher sees all.
    """

    def __init__(self, network: SpectrogramViT, teacher: FrozenTeacher, *, drop: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.teacher = teacher
        self.drop = drop
        network.head.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        embedding = encode(self.network, batch.images, drop=self.drop, order=batch.order)
        reference = self.teacher.features(batch.teacher_images) if batch.reference is None else batch.reference
        return {"matching": feature_distance(embedding, reference)}


class Distillation(Supervised):
    """Cross-entropy and L1 to the teacher's feature, and, where asked for, the teacher's soft labels.

    Args:
        network: the student.
        teacher: what it is to imitate.
        alpha: weight of the L1 distance.
        soft_weight: weight of the cross-entropy against the teacher's probabilities.
        soft_temperature: what softens these probabilities.
        drop: share of the student's patches left out in training; the teacher sees all.
        label_smoothing: share of the target spread over all classes.
        class_weights: `[classes]` or None.
    """

    def __init__(
        self,
        network: SpectrogramViT,
        teacher: FrozenTeacher,
        *,
        alpha: float,
        soft_weight: float = 0.0,
        soft_temperature: float = 2.0,
        drop: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(
            network,
            drop=drop,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            soft_weight=soft_weight,
            soft_temperature=soft_temperature,
        )
        self.teacher = teacher
        self.alpha = alpha
        network.head.requires_grad_(True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        embedding = encode(self.network, batch.images, drop=self.drop, order=batch.order)
        reference = self.teacher.features(batch.teacher_images) if batch.reference is None else batch.reference
        losses = {
            "cross_entropy": self._cross_entropy(embedding, batch),
            "matching": self.alpha * feature_distance(embedding, reference),
        }
        if self.soft_weight:
            losses["soft_labels"] = self._soft_labels(embedding, [self.teacher.logits(reference)], batch)
        return losses
