"""The speech encoder that students learn from: Whisper base's, read without the `transformers` package.

Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022. It is a vision transformer on
vertically long patches, too: two convolutions over whole frequency columns, sinusoidal positions, six pre-norm blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...errors import IntegrityError, WeightsError
from ...model.config import WEIGHTS_FILE, FrontendConfig
from ...model.frontend import LogMel
from ...weights.download import HubRepository
from ...weights.tensors import require_finite, require_shapes

REPOSITORY = "openai/whisper-base"
REVISION = "e37978b90ca9030d5170a5c07aadb050351a65bb"
FILE_SHA256 = "07cadb9f25677c8d50df603e66a98fbd842cce45047139baeb16e6219a1e807b"
ENCODER_SHA256 = "f3106a6c48cd87ac450d9060cc1718094aa0df2d88edb62a759a1ffc758d60c1"
"""Of the encoder's tensors alone, in half precision, which is what they were published in: see `digest_of`."""
ORIGIN = {
    "repository": REPOSITORY,
    "revision": REVISION,
    "encoder_sha256": ENCODER_SHA256,
    "credit": "Whisper base (OpenAI), which learnt from 680,000 hours of audio of unknown origin",
    "citation": "Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022",
    "license": "MIT (github.com/openai/whisper), Apache-2.0 (huggingface.co/openai/whisper-base)",
}
"""The encoder in the record of a run."""

PREFIX = "model.encoder."
MELS, DIM, HEADS, MLP_DIM, DEPTH, POSITIONS = 80, 512, 8, 2048, 6, 1500
LEVEL = 0.9  # of the peak: the encoder depends on the level, the student does not
LOUDEST = 1.6  # decades of power of the loudest band of a clip at that level, the mean over the corpora
TOKEN_SAMPLES = 320  # two frames: a token every 20 ms

FRONTEND = FrontendConfig.frames()
"""The students' front-end computes the same band powers as Whisper's, except for the two frames at either end of a
clip: Whisper pads the clip by reflection, this front-end by zeros."""


def read_teacher(folder: Path | None = None) -> dict[str, Tensor]:
    """Return the encoder's tensors by name, without the prefix, as float32.

    Args:
        folder: one with ``model.safetensors`` in the layout of the Hub repository, of which the encoder's tensors are
            enough; None fetches the file from the Hub.

    Raises:
        WeightsError: the file cannot be found or read, or its tensors are others.
        IntegrityError: the tensors are not those of Whisper base.
        DownloadError: the file could not be fetched.
    """
    if folder is None:
        path, _ = HubRepository(REPOSITORY, None, False).fetch_verified(WEIGHTS_FILE, REVISION, FILE_SHA256)
    else:
        path = folder / WEIGHTS_FILE
        if not path.is_file():
            raise WeightsError(
                f"{folder}: no {WEIGHTS_FILE} is here: give the folder of a copy of {REPOSITORY}, or no --teacher"
            )
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118 - not a mapping
            tensors = {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: damaged safetensors file ({error}): fetch it again") from error
    require_shapes({name: tensor.shape for name, tensor in tensors.items()}, encoder_shapes(), str(path))
    require_finite(tensors, str(path))
    if (found := digest_of(tensors)) != ENCODER_SHA256:
        raise IntegrityError(f"{path}: its encoder has SHA-256 {found}, that of {REPOSITORY} has {ENCODER_SHA256}")
    return {name: tensor.float() for name, tensor in tensors.items()}


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors in half precision, by name and value."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors that `read_teacher` returns."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (DIM, MELS, 3),
        "conv1.bias": (DIM,),
        "conv2.weight": (DIM, DIM, 3),
        "conv2.bias": (DIM,),
        "embed_positions.weight": (POSITIONS, DIM),
        "layer_norm.weight": (DIM,),
        "layer_norm.bias": (DIM,),
    }
    linear = {f"self_attn.{name}_proj": (DIM, DIM) for name in ("q", "k", "v", "out")}
    linear |= {"fc1": (MLP_DIM, DIM), "fc2": (DIM, MLP_DIM)}
    for layer in range(DEPTH):
        for name, (outputs, inputs) in linear.items():
            shapes[f"layers.{layer}.{name}.weight"] = (outputs, inputs)
            shapes[f"layers.{layer}.{name}.bias"] = (outputs,)
        del shapes[f"layers.{layer}.self_attn.k_proj.bias"]  # adding a constant to all keys does not change attention
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"layers.{layer}.{norm}.{part}": (DIM,) for part in ("weight", "bias")}
    return shapes


class SpeechEncoder:
    """The first layers of the encoder. It is no module, so that no optimiser, ``train()`` or state dict finds it.

    Args:
        tensors: what `read_teacher` returns.
        layers: how many of the six blocks are kept.
        device: where it computes.
        dtype: in which precision.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        *,
        layers: int = DEPTH,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        beyond = tuple(f"layers.{layer}." for layer in range(layers, DEPTH))
        self.layers, self.dtype = layers, dtype
        self.frontend = LogMel(FRONTEND).to(device)
        self.tensors = {
            name: tensor.to(device, dtype).detach() for name, tensor in tensors.items() if not name.startswith(beyond)
        }

    @torch.no_grad()
    def listen(self, waveform: Tensor, layers: Sequence[int]) -> Tensor:
        """Return the tokens behind some blocks, `[batch, len(layers), tokens, 512]` float32; a token is 20 ms.

        Those behind the fifth and sixth block degenerate unless a clip ends with half a second of silence.

        Args:
            waveform: `[batch, samples]` at 16 kHz, with a peak of `LEVEL`.
            layers: numbers of blocks, from 0 for what goes into the first.
        """
        outputs = self.forward(self.spectrogram(waveform))
        return torch.stack([outputs[layer].float() for layer in layers], dim=1)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """Return the encoder's input `[batch, 80, samples // 160]` for clips `[batch, samples]` at 16 kHz.

        It is the decimal logarithm of power, at most 8 below the maximum, scaled to about -1 to 1.
        """
        power = self.frontend.mel_power(waveform)[:, : waveform.shape[1] // FRONTEND.hop_length]
        level = power.clamp(min=1e-10).log10()
        level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - 8.0)
        return ((level + 4.0).transpose(1, 2) / 4.0).to(self.dtype)

    def forward(self, spectrogram: Tensor) -> list[Tensor]:
        """Return the tokens `[batch, tokens, 512]` that go into the first block, and those behind each block.

        Args:
            spectrogram: what the method of this name returns.
        """
        tokens = nn.functional.gelu(self._conv("conv1", spectrogram, stride=1))
        tokens = nn.functional.gelu(self._conv("conv2", tokens, stride=2)).transpose(1, 2)
        tokens = tokens + self.tensors["embed_positions.weight"][: tokens.shape[1]]
        outputs = [tokens]
        for layer in range(self.layers):
            outputs.append(self._block(f"layers.{layer}", outputs[-1]))
        return outputs

    def _conv(self, name: str, values: Tensor, *, stride: int) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return nn.functional.conv1d(values, weight, bias, stride=stride, padding=1)

    def _linear(self, name: str, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def _norm(self, name: str, values: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return nn.functional.layer_norm(values, (DIM,), weight, bias)

    def _block(self, name: str, tokens: Tensor) -> Tensor:
        normed = self._norm(f"{name}.self_attn_layer_norm", tokens)
        query, key, value = (
            self._linear(f"{name}.self_attn.{part}_proj", normed).view(*tokens.shape[:2], HEADS, -1).transpose(1, 2)
            for part in "qkv"
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self._linear(f"{name}.self_attn.out_proj", mixed)
        hidden = nn.functional.gelu(self._linear(f"{name}.fc1", self._norm(f"{name}.final_layer_norm", tokens)))
        return tokens + self._linear(f"{name}.fc2", hidden)
