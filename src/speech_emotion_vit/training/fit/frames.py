"""Matching frame by frame: a student of frames learns what a frozen speech encoder hears, without labels.

Teacher and student hear the same examples, which are made anew for every step: clips at other speeds, one behind the
other or between silences, some as from other rooms, microphones and lines.

A student as wide as its teacher starts as the teacher's own first blocks and speaks their language. Without positions
these say nothing at first, but after a few hundred steps they do, to strangers nearly as well as to voices that they
heard meanwhile. A student that starts behind a random projection has to learn the world from a few thousand clips.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...model.config import FrontendConfig
from ...model.frame_vit import FrameViT
from ...model.frontend import LogMel
from ..data.augment import Degradation, change_speed, degrade, pad
from ..data.features import FULL_SCALE, Store
from ..data.rows import Indices, images_of
from .teacher import DIM, HEADS, LEVEL, LOUDEST, MELS, MLP_DIM, TOKEN_SAMPLES, SpeechEncoder

TARGETS = ((2, 3), (3, 4))  # which block of the student matches which layer of the teacher
WARM_START = (1, 2, 3)  # which block of the teacher each of the student starts as
SHORTEST, LONGEST, STEP = 75, 250, 25  # tokens of an example, 20 ms each; all of a batch are of one length
SPEED_SHARE, SLOWEST, FASTEST = 0.6, 0.87, 1.15
BEGINNING_SHARE = 0.5  # of the clips that are longer than the example: cut behind, the others anywhere
SILENCE_SHARE, LONGEST_SILENCE = 0.2, 16_000  # samples before the first clip, or between two
DEGRADED_SHARE = 0.35
DEGRADATION = Degradation(nothing=0.0, noise=0.5, quietest_db=50.0, loudest_db=10.0)
MEASURED, AT_ONCE = 384, 16  # examples of the longest length that tell what the teacher usually says at which place
SMOOTH = 9  # tokens over which this is averaged

logger = logging.getLogger(__name__)


class FrameBatch(NamedTuple):
    """What the stage sees; tensors on one device."""

    images: Tensor
    """`[batch, 1, n_mels, frames]`."""
    frames: Tensor
    """How many of them belong to each example `[batch]`."""
    targets: Tensor
    """What the encoder makes of it, layer by layer, `[batch, layers, tokens, 512]`, standardised."""


class Examples:
    """Unlabelled audio as the student meets it: altered anew every time.

    Args:
        waveforms: 16-bit samples by clip, at 16 kHz.
    """

    def __init__(self, waveforms: Store) -> None:
        self._waveforms, self.key = waveforms, waveforms.key
        self.clips = [waveforms.rows[name] for name in sorted(waveforms.rows)]
        """Where each clip begins and ends."""

    def batch(self, rows: Indices, rng: np.random.Generator) -> list[npt.NDArray[np.float32]]:
        """Return examples that begin with some clips, `[samples]` each, all of one random length."""
        tokens = int(rng.integers(SHORTEST, LONGEST + 1)) // STEP * STEP  # kernels are made, and kept, for each length
        return [self.example(int(row), tokens * TOKEN_SAMPLES, rng) for row in rows]

    def example(self, row: int, samples: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return `[samples]` that begin with a clip, with others behind it where it is too short."""
        parts: list[npt.NDArray[np.float32]] = []
        missing = samples
        while missing > 0:
            if rng.random() < SILENCE_SHARE:
                parts.append(np.zeros(min(missing, int(rng.integers(LONGEST_SILENCE))), np.float32))
                missing -= len(parts[-1])
            clip = self._clip(row, rng)
            if len(clip) > missing and rng.random() >= BEGINNING_SHARE:
                clip = clip[int(rng.integers(len(clip) - missing + 1)) :]
            parts.append(clip[:missing] * np.float32(rng.uniform(0.3, 1.0) if len(parts) > 1 else 1.0))
            missing -= len(parts[-1])
            row = int(rng.integers(len(self.clips)))
        waveform = np.concatenate(parts)
        if rng.random() < SILENCE_SHARE:
            waveform = pad(waveform, 0, 1, rng)[:samples]  # a quiet room over all of it
        if rng.random() < DEGRADED_SHARE:
            waveform = degrade(waveform, rng, bank=self._any_clip, settings=DEGRADATION)
        return np.asarray(waveform * (LEVEL / max(float(np.abs(waveform).max()), 1e-6)), np.float32)

    def _any_clip(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        return self._clip(int(rng.integers(len(self.clips))), rng)

    def _clip(self, row: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return a clip, most often at another speed, `[samples]`."""
        first, last = self.clips[row]
        last = min(last, first + LONGEST * TOKEN_SAMPLES * 3 // 2)
        samples = np.asarray(self._waveforms.values[first:last] / np.float32(FULL_SCALE), np.float32)
        if rng.random() >= SPEED_SHARE:
            return samples
        return change_speed(samples, float(np.exp(rng.uniform(np.log(SLOWEST), np.log(FASTEST)))))


class FrameMatching(nn.Module):
    """L1 distance between the tokens behind some blocks of the student and some layers of the teacher.

    Both are standardised by the teacher's deviation. A tenth of the variance of its third layer only says where in the
    clip a token is. The student cannot know that, so the teacher's mean at every place is subtracted.

    Args:
        network: the student; its head is not trained.
        teacher: the encoder.
        examples: what both hear.
        frontend: of the student.
        device: where batches are wanted.
    """

    def __init__(
        self,
        network: FrameViT,
        teacher: SpeechEncoder,
        examples: Examples,
        frontend: FrontendConfig,
        *,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        network.head.requires_grad_(False)
        self.teacher, self.examples, self.device = teacher, examples, device
        self.layers = [layer for _, layer in TARGETS]
        self.frontend = LogMel(frontend)
        self.piece = 1 << 16  # a batch is of one length, and not divided
        self.register_buffer("mean", torch.zeros(len(self.layers), LONGEST, DIM))
        self.register_buffer("deviation", torch.zeros(len(self.layers), 1, DIM))

    mean: Tensor
    deviation: Tensor

    def batches(self, size: int, rng: np.random.Generator) -> list[Indices]:
        """Return batches of clips, each clip once as the first of an example; what does not fill a batch rests."""
        order = rng.permutation(len(self.examples.clips))
        size = min(size, len(order))
        return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]

    def batch(self, rows: Indices, seed: int) -> FrameBatch:
        """Return examples that begin with some clips, all of one random length, and what the teacher makes of them."""
        if not bool(self.deviation.any()):
            self._measure()
        rng = np.random.default_rng((seed, *map(int, rows[:2])))
        waveforms = self.examples.batch(rows, rng)
        outputs = self._heard(waveforms)
        images, frames = images_of(waveforms, self.frontend, self.device)
        return FrameBatch(images, frames, (outputs - self.mean[:, : outputs.shape[2]]) / self.deviation)

    def _measure(self) -> None:
        """Find the teacher's mean at every place and its deviation from it."""
        rng = np.random.default_rng(0)
        outputs = []
        for _ in range(0, MEASURED, AT_ONCE):
            rows = rng.integers(len(self.examples.clips), size=AT_ONCE)
            outputs.append(self._heard([self.examples.example(int(row), LONGEST * TOKEN_SAMPLES, rng) for row in rows]))
        values = torch.cat(outputs)  # [examples, layers, tokens, 512]
        mean = values.mean(dim=0).transpose(1, 2)
        usual = nn.functional.avg_pool1d(
            nn.functional.pad(mean, (SMOOTH // 2, SMOOTH // 2), mode="replicate"), SMOOTH, stride=1
        ).transpose(1, 2)
        self.mean.copy_(usual)
        self.deviation.copy_((values - usual).square().mean(dim=(0, 2)).sqrt()[:, None] + 1e-3)
        share = 1 - (self.deviation.squeeze(1).square() / values.var(dim=(0, 2))).mean(dim=1)
        logger.info(
            "of what the teacher says, the place says %s", ", ".join(f"{value:.1%}" for value in share.tolist())
        )

    def _heard(self, waveforms: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        """Return the teacher's tokens `[batch, layers, tokens, 512]`."""
        return self.teacher.listen(torch.from_numpy(np.stack(waveforms)).to(self.device), self.layers)

    def forward(self, batch: FrameBatch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        count = batch.targets.shape[2]
        outputs = self.network.forward_features(batch.images, batch.frames).tokens
        losses = {}
        for place, (block, layer) in enumerate(TARGETS):
            tokens = outputs[block][:, :count].float()
            tokens = (tokens - self.mean[place].mean(dim=0)) / self.deviation[place]
            losses[f"layer_{layer}"] = (tokens - batch.targets[:, place]).abs().mean()
        return losses


def warm_start(network: FrameViT, tensors: Mapping[str, Tensor]) -> None:
    """Give convolutions and blocks the values of the encoder's; the student is as wide.

    Its input is twice the image and a constant, which the first convolution takes in. In the place of its positions
    comes their mean, which the convolution in the first block adds.

    Args:
        network: the student.
        tensors: what `read_teacher` returns.

    Raises:
        ConfigError: the student has another shape.
    """
    c = network.config
    if (c.n_mels, c.stem, c.dim, c.heads, c.mlp_dim, c.depth) != (MELS, DIM, DIM, HEADS, MLP_DIM, len(WARM_START)):
        raise ConfigError(f"stage frames is for a student of the shape of base, not {c}: set no value of model")
    first, second = network.stem
    blocks: list[Any] = list(network.blocks)
    scale, offset = 2.0, (LOUDEST - 4.0) / 4.0
    weight = tensors["conv1.weight"]
    given: list[tuple[nn.Module, dict[str, Tensor]]] = [
        (first, {"weight": scale * weight, "bias": tensors["conv1.bias"] + offset * weight.sum(dim=(1, 2))}),
        (second, {name: tensors[f"conv2.{name}"] for name in ("weight", "bias")}),
    ]
    for number, block in zip(WARM_START, blocks, strict=True):
        name = f"layers.{number - 1}"
        parts = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
        bias = [tensors.get(f"{part}.bias", torch.zeros(DIM)) for part in parts]
        attention, mlp = block.attention, block.mlp
        given += [
            (attention.qkv, {"weight": torch.cat([tensors[f"{p}.weight"] for p in parts]), "bias": torch.cat(bias)}),
            *(
                (module, {part: tensors[f"{name}.{theirs}.{part}"] for part in ("weight", "bias")})
                for module, theirs in (
                    (attention.norm, "self_attn_layer_norm"),
                    (attention.projection, "self_attn.out_proj"),
                    (mlp.norm, "final_layer_norm"),
                    (mlp.hidden, "fc1"),
                    (mlp.output, "fc2"),
                )
            ),
        ]
    for module, values in given:
        module.load_state_dict(values)
    if blocks[0].convolution is not None:
        with torch.no_grad():
            blocks[0].convolution.bias.copy_(tensors["embed_positions.weight"][:LONGEST].mean(dim=0))
