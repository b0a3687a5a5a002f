"""Configurations: frozen, validated, and stored with every weight, so that a file alone rebuilds its network.

Values marked *paper* are stated or shown by Kim & Lee (IEEE Access 2024, doi 10.1109/ACCESS.2024.3447770) or
their published code; the others are this project's documented choices where the paper is silent.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..decoding import check, decode, decode_one_of
from ..errors import ConfigError, quoted

if TYPE_CHECKING:
    from msgspec import Meta

Window = Literal["hamming", "hann"]
MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney", "none"]
Interpolation = Literal["antialias", "linear"]
LongClips = Literal["windows", "truncate"]
Stem = Literal["none", "conv6"]

STEM_CHANNELS = (1, 16, 32, 64, 32, 16, 1)
"""Channels of the teacher's six convolutions (*paper*)."""

STATISTICS_EPSILON = 1e-5  # added to a variance over tokens, so that its root has a gradient at zero

TIMELINE_HOP = 1.0  # seconds between the segments of a timeline

TABLE_COLUMNS = frozenset(
    ("file", "start", "end", "label", "score", "speech", "duration", "model", "warnings")
)  # beside those of the labels

MAX_LABEL = 64  # characters
FORMULA = "=+-@"  # what a spreadsheet takes for the beginning of a formula

# The layout of a model folder, here and on the Hub.
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

MIN_BANDWIDTH = 1.0  # Hz from f_min to f_max; the Mel filters of far less are not finite in float32
MAX_TOKENS = 4096  # per window; attention grows with the square
MAX_STFT_VALUES = 1 << 23  # frames x bins of one window, 32 MiB of float32
MAX_STEM_PIXELS = 1 << 17  # of an image that goes through a stem of up to 128 channels

FRAME_STRIDE = 2
"""Frames per token of a `FrameViT`: its second convolution leaves every other one."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """How a waveform becomes the log-Mel image the network sees.

    Raises:
        ConfigError: a value is out of range or two values contradict each other.
    """

    sampling_rate: Annotated[int, Meta(ge=4_000, le=384_000)] = 16_000
    """Hz; everything else is resampled to it (*paper*)."""
    window_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 4.0
    """Length of one window of audio in seconds; shorter audio is zero-padded at the end (*paper*)."""
    window_hop_seconds: Annotated[float, Meta(ge=0.01, le=60)] = 2.0
    """Step between windows of a long clip in seconds; the last window is aligned to the end."""
    long_clips: LongClips = "windows"
    """``windows``: average over windows; ``truncate``: the first window only (*paper*)."""
    n_fft: Annotated[int, Meta(ge=16, le=16_384)] = 1024
    """FFT length in samples (*paper*)."""
    win_length: Annotated[int, Meta(ge=16, le=16_384)] = 512
    """Analysis window in samples, 32 ms (*paper*)."""
    hop_length: Annotated[int, Meta(ge=1, le=16_384)] = 64
    """Step between frames in samples, 4 ms (*paper*); frames are centred on their sample, beyond the ends is zero."""
    window: Window = "hamming"
    """Analysis window, periodic (*paper*: Hamming)."""
    n_mels: Annotated[int, Meta(ge=4, le=512)] = 128
    """Mel bands, the height of the image (*paper*)."""
    f_min: Annotated[float, Meta(ge=0, le=192_000)] = 0.0
    """Lower edge of the first band in Hz."""
    f_max: Annotated[float, Meta(ge=0, le=192_000)] = 8000.0
    """Upper edge of the last band in Hz."""
    mel_scale: MelScale = "slaney"
    """Slaney's (linear below 1 kHz) or the HTK formula."""
    mel_norm: MelNorm = "slaney"
    """``slaney``: every band has the same area; ``none``: the same peak."""
    top_db: Annotated[float, Meta(ge=1, le=200)] = 80.0
    """Range of the image in dB below the loudest value of the window, mapped to 0..1 (fits the paper's figures)."""
    columns: Annotated[int, Meta(ge=4, le=2048)] | None = 128
    """Width of the image: the frames of a window are interpolated to this many columns (*paper*). None: every frame is
    a column, and the image is as wide as the clip is long."""
    interpolation: Interpolation = "antialias"
    """``antialias``: triangular kernel as wide as the reduction; ``linear``: two nearest frames."""

    @classmethod
    def frames(cls) -> FrontendConfig:
        """Return the front-end of ``base`` and ``small``: 80 bands, 100 frames a second, windows of 6 s."""
        return cls(
            window_seconds=6.0,
            window_hop_seconds=3.0,
            n_fft=400,
            win_length=400,
            hop_length=160,
            window="hann",
            n_mels=80,
            columns=None,
        )

    def __post_init__(self) -> None:
        check(self)
        for name, high in (
            ("window_hop_seconds", self.window_seconds),
            ("win_length", self.n_fft),
            ("hop_length", self.win_length),
        ):
            value = getattr(self, name)
            _require(value <= high, f"{name} must be at most {high:g} here, not {quoted(value)}")
        _require(
            self.f_min >= 0 and self.f_min + MIN_BANDWIDTH <= self.f_max <= self.sampling_rate / 2,
            f"0 <= f_min < f_max <= {self.sampling_rate / 2:g} Hz must hold, at least {MIN_BANDWIDTH:g} Hz apart, "
            f"not {self.f_min:g} and {self.f_max:g}",
        )
        _require(
            self.window_samples >= self.win_length,
            f"window_seconds {self.window_seconds} is shorter than one frame of {self.win_length} samples, "
            f"{self.win_length / self.sampling_rate:g} s: lower win_length",
        )
        _require(
            self.columns is None or self.n_frames >= self.columns,
            f"a window has {self.n_frames} frames, fewer than the {self.columns} columns asked for: lower hop_length",
        )
        values = self.n_frames * (self.n_fft // 2 + 1)
        _require(
            values <= MAX_STFT_VALUES,
            f"a window has {values:,} STFT values, more than {MAX_STFT_VALUES:,}: raise hop_length or lower n_fft",
        )

    @property
    def window_samples(self) -> int:
        """Samples in one window."""
        return round(self.window_seconds * self.sampling_rate)

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of two windows of a long clip."""
        return round(self.window_hop_seconds * self.sampling_rate)

    @property
    def n_frames(self) -> int:
        """Centred STFT frames in one window: 1001 with the defaults."""
        return self.window_samples // self.hop_length + 1

    def frames_of(self, samples: int) -> int:
        """Return how many frames of a clip of so many samples, at most a window, are computed.

        With `columns`, all that touch the clip, for they reach into its columns; else those centred within it.
        """
        if self.columns is None:
            return samples // self.hop_length + 1
        return min(self.n_frames, -(-(samples + self.win_length // 2) // self.hop_length))

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: object) -> FrontendConfig:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused."""
        return decode(cls, values, "frontend config")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a `SpectrogramViT`. The defaults are the paper's student.

    Raises:
        ConfigError: a value is out of range or two values contradict each other.
    """

    network: Literal["SpectrogramViT"] = "SpectrogramViT"
    """Which network it is of."""
    num_classes: Annotated[int, Meta(ge=1, le=1000)]
    """Width of the classification head."""
    image_height: Annotated[int, Meta(ge=1, le=512)] = 128
    """Rows of the image: Mel bands (*paper*)."""
    image_width: Annotated[int, Meta(ge=1, le=2048)] = 128
    """Columns of the image: moments (*paper*)."""
    patch_height: Annotated[int, Meta(ge=1, le=512)] = 128
    """Rows per patch; the paper's vertically long patch takes all of them (*paper*)."""
    patch_width: Annotated[int, Meta(ge=1, le=2048)] = 1
    """Columns per patch (*paper*)."""
    dim: Annotated[int, Meta(ge=1, le=2048)] = 256
    """Token width (*paper*)."""
    depth: Annotated[int, Meta(ge=1, le=48)] = 3
    """Transformer blocks: 3 in the student, 6 in the teacher (*paper*)."""
    heads: Annotated[int, Meta(ge=1, le=64)] = 5
    """Attention heads (*paper*)."""
    head_dim: Annotated[int, Meta(ge=1, le=256)] = 64
    """Width of one head (*paper*)."""
    mlp_dim: Annotated[int, Meta(ge=1, le=8192)] = 256
    """Hidden width of a block's MLP (*paper*)."""
    stem: Stem = "none"
    """``conv6``: the teacher's six 3x3 convolutions before patching (*paper*)."""
    coordinates: bool = False
    """Append row and column coordinates as two channels before patching (*paper*: teacher, "ICE")."""

    def __post_init__(self) -> None:
        check(self)
        for image, patch in (("image_height", "patch_height"), ("image_width", "patch_width")):
            size, step = getattr(self, image), getattr(self, patch)
            _require(size % step == 0, f"{image} {size} is not a multiple of {patch} {step}")
        pixels = self.image_height * self.image_width
        tokens = pixels // (self.patch_height * self.patch_width)
        _require(tokens <= MAX_TOKENS, f"{tokens} patches per image are more than {MAX_TOKENS}: take larger patches")
        _require(
            self.stem == "none" or pixels <= MAX_STEM_PIXELS,
            f"an image of {pixels} pixels is more than a stem takes, {MAX_STEM_PIXELS}: take a smaller image",
        )

    @classmethod
    def student(cls, num_classes: int) -> ModelConfig:
        """Return the paper's student: no stem, no position, 3 blocks."""
        return cls(num_classes=num_classes)

    @classmethod
    def teacher(cls, num_classes: int) -> ModelConfig:
        """Return the paper's teacher: convolutional stem, coordinates, 6 blocks."""
        return cls(num_classes=num_classes, depth=6, stem="conv6", coordinates=True)

    @property
    def channels(self) -> int:
        """Channels of the image that is cut into patches."""
        return 3 if self.coordinates else 1

    @property
    def embedding_dim(self) -> int:
        """Values in the embedding that the head reads: the CLS token's."""
        return self.dim

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch, behind the stem."""
        return self.patch_height * self.patch_width * self.channels

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: object) -> ModelConfig:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused."""
        return decode(cls, values, "model config")


@dataclass(frozen=True, kw_only=True)
class FrameViTConfig:
    """Shape of a `FrameViT`. The defaults are those of the model ``base`` with a linear head.

    Raises:
        ConfigError: a value is out of range or two values contradict each other.
    """

    network: Literal["FrameViT"] = "FrameViT"
    """Which network it is of."""
    num_classes: Annotated[int, Meta(ge=1, le=1000)]
    """Width of the classification head."""
    n_mels: Annotated[int, Meta(ge=1, le=512)] = 80
    """Mel bands of the image."""
    stem: Annotated[int, Meta(ge=1, le=2048)] = 512
    """Channels between the two convolutions of the stem."""
    dim: Annotated[int, Meta(ge=1, le=2048)] = 512
    """Token width."""
    depth: Annotated[int, Meta(ge=1, le=48)] = 3
    """Blocks."""
    heads: Annotated[int, Meta(ge=1, le=64)] = 8
    """Attention heads; they share `dim`."""
    mlp_dim: Annotated[int, Meta(ge=1, le=8192)] = 2048
    """Hidden width of a block's MLP."""
    taps: Annotated[int, Meta(ge=0, le=255)] = 15
    """Tokens that the convolution of a block sees, an odd number: 15 are 0.3 s; 0: the blocks have none."""
    pooled: tuple[int, ...] = (2, 3)
    """Blocks whose mean and deviation over time the head reads, counted from 1."""
    head_hidden: Annotated[int, Meta(ge=0, le=8192)] = 0
    """Hidden width of the classification head; 0: the head is one linear layer."""

    def __post_init__(self) -> None:
        check(self)
        _require(self.dim % self.heads == 0, f"dim {self.dim} is not a multiple of heads {self.heads}")
        _require(self.taps % 2 == 1 or not self.taps, f"taps must be odd or 0, not {self.taps}")
        blocks = range(1, self.depth + 1)
        _require(
            len(self.pooled) > 0 and set(self.pooled) <= set(blocks) and sorted(set(self.pooled)) == list(self.pooled),
            f"pooled must be ascending numbers of blocks from 1 to {self.depth}, not {quoted(list(self.pooled))}",
        )

    @classmethod
    def base(cls, num_classes: int) -> FrameViTConfig:
        """Return the shape of the model ``base``: 11 million parameters."""
        return cls(num_classes=num_classes, head_hidden=512)

    @classmethod
    def small(cls, num_classes: int) -> FrameViTConfig:
        """Return the shape of the model ``small``: 1.5 million parameters."""
        return cls(num_classes=num_classes, stem=128, dim=192, heads=3, mlp_dim=768, head_hidden=60)

    @property
    def embedding_dim(self) -> int:
        """Values in the embedding that the head reads."""
        return 2 * len(self.pooled) * self.dim

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: object) -> FrameViTConfig:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused."""
        return decode(cls, values, "model config")


def network_from_dict(values: object) -> ModelConfig | FrameViTConfig:
    """Build the configuration of a network from parsed JSON; ``network`` says of which.

    Raises:
        ConfigError: as the two's `from_dict`.
    """
    config: ModelConfig | FrameViTConfig = decode_one_of((ModelConfig, FrameViTConfig), values)
    return config


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Everything but the tensors: what is stored as ``config.json`` and in the metadata of the weights.

    Raises:
        ConfigError: labels, network and front-end do not fit together.
    """

    labels: tuple[str, ...]
    """Names of the classes, in the order of the head's outputs."""
    model: ModelConfig | FrameViTConfig
    """The network: a `SpectrogramViT` or a `FrameViT`."""
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    """The front-end it was trained with."""
    temperature: Annotated[float, Meta(ge=1e-3, le=1e3)] = 1.0
    """Logits are divided by this before the softmax; fitted on speakers that the network, or those of a
    cross-validation, had not heard."""

    def __post_init__(self) -> None:
        check(self)
        _require(
            len(set(self.labels)) == len(self.labels) == self.model.num_classes and all(self.labels),
            f"{self.model.num_classes} different non-empty labels are needed, not {quoted(list(self.labels))}",
        )
        columns = sorted(TABLE_COLUMNS & set(self.labels))
        _require(
            not columns, f"labels cannot be called {quoted(columns)}, as other columns of a table are: rename them"
        )
        for label in self.labels:  # they come from strangers, and go to terminals, tables and spreadsheets
            _require(
                label.isprintable() and len(label) <= MAX_LABEL and label == label.strip() and label[0] not in FORMULA,
                f"a label must be printable, at most {MAX_LABEL} characters, without space around it, and not begin "
                f"with one of {FORMULA}, as formulas of spreadsheets do, not {quoted(label)}: rename it",
            )
        spectrogram = (self.frontend.n_mels, self.frontend.columns)
        if isinstance(self.model, FrameViTConfig):
            image: tuple[int, int | None] = (self.model.n_mels, None)
            tokens = -(-self.frontend.n_frames // FRAME_STRIDE)
            _require(
                tokens <= MAX_TOKENS, f"{tokens} tokens per window are more than {MAX_TOKENS}: lower window_seconds"
            )
        else:
            image = (self.model.image_height, self.model.image_width)
        _require(image == spectrogram, f"the network wants images of {image}, the front-end makes {spectrogram}")

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: object) -> ClassifierConfig:
        """Build from parsed JSON.

        Raises:
            ConfigError: keys are missing or unknown, or a value has the wrong type or is out of range.
        """
        return decode(cls, values, "config")


def _plain(config: Any) -> dict[str, Any]:
    """Return a configuration as JSON has it."""
    values: dict[str, Any] = dataclasses.asdict(config)
    for name, value in values.items():
        if isinstance(value, tuple):
            values[name] = list(value)
        elif dataclasses.is_dataclass(getattr(config, name)):
            values[name] = _plain(getattr(config, name))
    return values
