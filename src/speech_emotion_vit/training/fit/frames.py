"""Matching frame by frame: a student of frames learns what a frozen speech encoder hears, without labels.

The encoder hears every clip clean, at its own and at two other speeds; that is computed once and kept on disk. The
student hears the same clip, cut, between silences, and altered as by another room, microphone or line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...model.config import FRAME_STRIDE, FrontendConfig
from ...model.frame_vit import FrameViT
from ...model.frontend import LogMel
from ..data.augment import change_speed, degrade, pad
from ..data.corpora import CORPORA, Utterance
from ..data.features import FULL_SCALE, Store, load_values, load_waveforms
from ..data.rows import Indices, images_of
from .teacher import DIM, ENCODER_SHA256, FRONTEND, LEVEL, TOKEN_SAMPLES, SpeechEncoder

LONGEST = 6.0  # seconds of a clip that are heard
SLOWER, FASTER = (0.82, 0.95), (1.05, 1.22)  # ranges of the two other speeds
CLEAN_SHARE = 0.2  # of the clips that are not altered
CUT_SHARE, SHORTEST_CUT = 0.3, 50  # of the clips that are cut, to at least 50 tokens, a second
SILENCE_SHARE, LONGEST_SILENCE = 0.25, 40  # of the clips with silence in front, and behind; tokens of 20 ms
EVERY = 37  # which tokens tell mean and deviation: the prime is in step with no length of clips


class FrameBatch(NamedTuple):
    """What the stage sees; tensors on one device."""

    images: Tensor
    """`[batch, 1, n_mels, frames]`."""
    frames: Tensor
    """How many of them belong to each clip `[batch]`."""
    targets: Tensor
    """What the encoder heard `[batch, tokens, layers, 512]`, standardised."""
    known: Tensor
    """Of which tokens that is known `[batch, tokens]`, as 0 and 1: not of those between silences."""


@dataclass(frozen=True)
class Listening:
    """What a teacher heard in some clips, each in one or several speeds."""

    waveforms: Store
    """16-bit samples by clip."""
    frames: Store
    """Tokens `[tokens, layers, 512]` in half precision, by clip and speed."""
    versions: tuple[tuple[Utterance, ...], ...]
    """The speeds of every clip."""
    layers: tuple[int, ...]
    """Of the encoder."""

    @property
    def key(self) -> str:
        """Digest of all that was heard, and by whom."""
        return self.frames.key


def listen(
    teacher: SpeechEncoder,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    *,
    cache: Path | None,
) -> Listening:
    """Let a teacher hear all clips, or find what it heard in the cache.

    Args:
        teacher: the encoder.
        utterances: the clips.
        layers: whose outputs are kept.
        cache: of waveforms and frames.

    Raises:
        DatasetError: no clip can be read, or the cache cannot be written.
    """
    waveforms = load_waveforms(utterances, FRONTEND.sampling_rate, cache=cache, title="audio")
    readable = [utterance for utterance in utterances if utterance.id in waveforms.rows]
    versions = tuple(tuple(utterance.altered(speed) for speed in _speeds(utterance)) for utterance in readable)

    def compute(utterance: Utterance) -> npt.NDArray[np.float16]:
        heard = teacher.listen(torch.from_numpy(waveform_of(waveforms, utterance))[None], layers)[0]
        return heard.clamp(-6e4, 6e4).half().cpu().numpy()

    about = {"teacher": ENCODER_SHA256, "positions": teacher.positions, "layers": list(layers), "longest": LONGEST}
    everything = [version for each in versions for version in each]
    frames = load_values(everything, about, compute, cache=cache, title="what the teacher hears")
    return Listening(waveforms, frames, versions, tuple(layers))


def waveform_of(waveforms: Store, utterance: Utterance) -> npt.NDArray[np.float32]:
    """Return a clip in the speed that its version names, `[samples]` with a peak of about 1, cut to `LONGEST`."""
    first, last = waveforms.rows[utterance.recording]
    last = min(last, first + round(LONGEST * FRONTEND.sampling_rate))
    samples = np.asarray(waveforms.values[first:last] / np.float32(FULL_SCALE), np.float32)
    return change_speed(samples, float(utterance.version.removeprefix("x"))) if utterance.version[0] == "x" else samples


def _speeds(utterance: Utterance) -> list[str]:
    """Return names of versions: the recording, and a slower and a faster one by random numbers of its own.

    What is no published corpus, as synthetic speech, varies enough and is heard at its own speed alone.
    """
    if utterance.corpus not in CORPORA:
        return [utterance.version]
    seed = hashlib.sha256(utterance.id.encode()).digest()[:8]
    rng = np.random.default_rng(int.from_bytes(seed, "little"))
    return [utterance.version, f"x{rng.uniform(*SLOWER):.3f}", f"x{rng.uniform(*FASTER):.3f}"]


class FrameMatching(nn.Module):
    """L1 distance of tokens behind some blocks, each through a projection, to standardised tokens of the teacher.

    Args:
        network: the student; its head is not trained.
        listening: what the teacher heard.
        frontend: of the student.
        targets: which block matches which layer.
        device: where batches are wanted.
    """

    def __init__(
        self,
        network: FrameViT,
        listening: Listening,
        frontend: FrontendConfig,
        targets: Sequence[tuple[int, int]],
        *,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        network.head.requires_grad_(False)
        self.listening, self.device = listening, device
        self.targets = [(block, listening.layers.index(layer)) for block, layer in targets]
        # Not kept with the network: only what is in front of them ships.
        self.projections = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(network.config.dim), nn.Linear(network.config.dim, DIM)) for _ in self.targets
        )
        self.frontend = LogMel(frontend)
        sample = torch.from_numpy(listening.frames.values[::EVERY].astype(np.float32))
        deviation, mean = torch.std_mean(sample, dim=0, correction=0)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation + 1e-3, persistent=False)
        self.piece = len(listening.versions)
        rows = listening.frames.rows
        self._tokens = [[rows[v.id][1] - rows[v.id][0] for v in versions] for versions in listening.versions]

    mean: Tensor
    deviation: Tensor

    def batches(self, size: int, rng: np.random.Generator) -> list[Indices]:
        """Return batches of clips of like length, each clip once; what does not fill a batch rests."""
        lengths = np.array([np.mean(tokens) for tokens in self._tokens])
        order = np.argsort(lengths + rng.uniform(-25, 25, len(lengths)))  # half a second: neighbours change
        size = min(size, len(order))
        batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def batch(self, rows: Indices, seed: int) -> FrameBatch:
        """Return some clips as the student hears them, and what the teacher heard."""
        clips = [self._clip(int(row), np.random.default_rng((seed, int(row)))) for row in rows]
        images, frames = images_of([clip.waveform for clip in clips], self.frontend, self.device)
        tokens = -(-images.shape[3] // FRAME_STRIDE)
        targets = np.zeros((len(clips), tokens, *self.mean.shape), np.float32)
        known = np.zeros((len(clips), tokens), np.float32)
        for index, clip in enumerate(clips):
            last = min(tokens, clip.lead + len(clip.heard))
            targets[index, clip.lead : last] = clip.heard[: last - clip.lead]
            known[index, clip.lead : last] = 1.0
        wanted = (torch.from_numpy(targets).to(self.device) - self.mean) / self.deviation
        return FrameBatch(images, frames, wanted, torch.from_numpy(known).to(self.device))

    def _clip(self, row: int, rng: np.random.Generator) -> _Clip:
        version = self.listening.versions[row][rng.integers(len(self.listening.versions[row]))]
        waveform = waveform_of(self.listening.waveforms, version) * LEVEL
        heard = self.listening.frames.of(version)
        if rng.random() < CUT_SHARE and len(heard) > SHORTEST_CUT + 10:
            length = int(rng.integers(SHORTEST_CUT, len(heard)))
            start = int(rng.integers(0, len(heard) - length))
            heard = heard[start : start + length]
            waveform = waveform[start * TOKEN_SAMPLES : (start + length) * TOKEN_SAMPLES]
        lead, behind = (
            int(rng.integers(LONGEST_SILENCE)) if rng.random() < SILENCE_SHARE else 0 for _ in ("before", "behind")
        )
        waveform = pad(waveform, lead * TOKEN_SAMPLES, behind * TOKEN_SAMPLES, rng)
        if rng.random() >= CLEAN_SHARE:
            waveform = degrade(waveform, rng, bank=self._other)
        return _Clip(waveform, lead, heard)

    def _other(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Return another clip, for a babble of voices."""
        versions = self.listening.versions[rng.integers(len(self.listening.versions))]
        return waveform_of(self.listening.waveforms, versions[0])

    def forward(self, batch: FrameBatch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        outputs = self.network.forward_features(batch.images, batch.frames).tokens
        known = batch.known[:, :, None]
        total = (known.sum() * DIM).clamp(min=1.0)
        losses = {}
        for (block, place), projection in zip(self.targets, self.projections, strict=True):
            distance = (projection(outputs[block]).float() - batch.targets[:, :, place]).abs() * known
            losses[f"layer_{self.listening.layers[place]}"] = distance.sum() / total
        return losses


class _Clip(NamedTuple):
    waveform: npt.NDArray[np.float32]
    lead: int  # tokens of silence in front of what the teacher heard
    heard: npt.NDArray[np.float16]


LOUDEST = 1.6  # decades: the loudest band of speech with a peak of 1


def warm_start(network: FrameViT, tensors: Mapping[str, Tensor]) -> int:
    """Give convolutions and blocks the values of the encoder's where they have the same size, and return how many.

    Its positions have no place here. Its input is twice the image and a constant, which the first convolution takes in.

    Args:
        network: the student.
        tensors: what `read_teacher` returns.
    """
    first, second = network.stem
    blocks: list[Any] = list(network.blocks)
    scale, offset = 2.0, (LOUDEST - 4.0) / 4.0
    weight = tensors["conv1.weight"]
    given: list[tuple[nn.Module, dict[str, Tensor]]] = [
        (first, {"weight": scale * weight, "bias": tensors["conv1.bias"] + offset * weight.sum(dim=(1, 2))}),
        (second, {name: tensors[f"conv2.{name}"] for name in ("weight", "bias")}),
    ]
    for number, block in enumerate(blocks):
        name = f"layers.{number}"
        if f"{name}.fc1.weight" not in tensors:
            break
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
    fitting = [
        (module, values)
        for module, values in given
        if {key: value.shape for key, value in module.state_dict().items()}
        == {key: value.shape for key, value in values.items()}
    ]
    for module, values in fitting:
        module.load_state_dict(values)
    return len(fitting)
