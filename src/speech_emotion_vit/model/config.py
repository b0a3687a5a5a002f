"""Configurations: frozen, validated, and stored with every weight, so that a file alone rebuilds its network.

Values marked *paper* are stated or shown by Kim & Lee (IEEE Access 2024, doi 10.1109/ACCESS.2024.3447770) or
their published code; the others are this project's documented choices where the paper is silent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from reprlib import repr as shown  # a stranger's file may hold megabytes
from typing import Any, Literal, TypeVar, get_args

from ..errors import ConfigError

Window = Literal["hamming", "hann"]
MelScale = Literal["slaney", "htk"]
MelNorm = Literal["slaney", "none"]
Interpolation = Literal["antialias", "linear"]
LongClips = Literal["windows", "truncate"]
Stem = Literal["none", "conv6", "strided"]
Pooling = Literal["cls", "statistics", "stem_statistics", "contour_statistics"]

STEM_CHANNELS = (1, 16, 32, 64, 32, 16, 1)
"""Channels of the teacher's six convolutions (*paper*)."""

STRIDED_CHANNELS = (32, 64, 128, 192)
"""Channels of the strided stem: every convolution halves the rows, the first ones, down to one column per patch, the
columns too."""

STATISTICS_EPSILON = 1e-5  # added to a variance over tokens, so that its root has a gradient at zero

CONTOUR_STATISTICS = 168
"""How many values `contour_statistics` gives: twelve of each of fourteen contours."""

TIMELINE_HOP = 1.0  # seconds between the segments of a timeline

TABLE_COLUMNS = frozenset(
    ("file", "start", "end", "label", "score", "silent", "duration", "model", "warnings")
)  # beside those of the labels

MAX_LABEL = 64  # characters
FORMULA = "=+-@"  # what a spreadsheet takes for the beginning of a formula

# The layout of a model folder, here and on the Hub.
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

MIN_BANDWIDTH = 1.0  # Hz from f_min to f_max; the Mel filters of far less are not finite in float32
MAX_TOKENS = 4096  # per window; attention grows with the square
MAX_STFT_VALUES = 1 << 23  # frames x bins of one window, 32 MiB of float32
FRAME_VIT = "FrameViT"  # what the configuration of a `FrameViT` calls its network
MAX_STEM_PIXELS = 1 << 17  # of an image that goes through a stem of up to 128 channels

FRAME_STRIDE = 2
"""Frames per token of a `FrameViT`: its second convolution leaves every other one."""

T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _from_dict(cls: type[T], values: object, what: str) -> T:
    """Build the dataclass `cls` from parsed JSON; refuse unknown keys and values of the wrong type."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must be a JSON object, not {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(
            f"{what} has unknown keys {shown(unknown)}; this version knows {sorted(fields)}: "
            "upgrade speech-emotion-vit or correct the file"
        )
    checked: dict[str, Any] = {}
    for name, value in values.items():
        wanted = str(fields[name].type)
        if wanted == "float":
            value = as_float(value)
        if wanted.endswith("| None"):
            if value is None:
                checked[name] = value
                continue
            wanted = wanted.removesuffix(" | None")
        if wanted.startswith("tuple"):
            if not isinstance(value, list) or any(type(item) is not int for item in value):
                raise ConfigError(f"{what}: {name} must be a list of whole numbers, not {shown(value)}")
            checked[name] = tuple(value)
            continue
        expected = {"int": int, "float": float, "bool": bool}.get(wanted, str)
        if type(value) is not expected:
            raise ConfigError(f"{what}: {name} must be {expected.__name__}, not {shown(value)}")
        checked[name] = value
    return cls(**checked)


def as_float(value: object) -> object:
    """Return a whole number of JSON as the float it stands for; a giant stays what it is, and is refused as such."""
    return float(value) if type(value) is int and abs(value) < 1 << 53 else value


def _require_choice(name: str, value: object, choices: object) -> None:
    allowed = get_args(choices)
    _require(value in allowed, f"{name} must be one of {', '.join(allowed)}, not {shown(value)}")


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """How a waveform becomes the log-Mel image the network sees.

    Raises:
        ConfigError: a value is out of range or two values contradict each other.
    """

    sampling_rate: int = 16_000
    """Hz; everything else is resampled to it (*paper*)."""
    window_seconds: float = 4.0
    """Length of one window of audio in seconds; shorter audio is zero-padded at the end (*paper*)."""
    window_hop_seconds: float = 2.0
    """Step between windows of a long clip in seconds; the last window is aligned to the end."""
    long_clips: LongClips = "windows"
    """``windows``: average over windows; ``truncate``: the first window only (*paper*)."""
    n_fft: int = 1024
    """FFT length in samples (*paper*)."""
    win_length: int = 512
    """Analysis window in samples, 32 ms (*paper*)."""
    hop_length: int = 64
    """Step between frames in samples, 4 ms (*paper*); frames are centred on their sample, beyond the ends is zero."""
    window: Window = "hamming"
    """Analysis window, periodic (*paper*: Hamming)."""
    n_mels: int = 128
    """Mel bands, the height of the image (*paper*)."""
    f_min: float = 0.0
    """Lower edge of the first band in Hz."""
    f_max: float = 8000.0
    """Upper edge of the last band in Hz."""
    mel_scale: MelScale = "slaney"
    """Slaney's (linear below 1 kHz) or the HTK formula."""
    mel_norm: MelNorm = "slaney"
    """``slaney``: every band has the same area; ``none``: the same peak."""
    top_db: float = 80.0
    """Range of the image in dB below the loudest value of the window, mapped to 0..1 (fits the paper's figures)."""
    floor: float = 0.0
    """Lowest value of a column with sound, in parts of the image's range, for further down recordings differ in their
    rooms and microphones: 0.3 is 56 dB below the loudest value of the window."""
    columns: int | None = 128
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
        for name, choices in (
            ("long_clips", LongClips),
            ("window", Window),
            ("mel_scale", MelScale),
            ("mel_norm", MelNorm),
            ("interpolation", Interpolation),
        ):
            _require_choice(name, getattr(self, name), choices)
        _require(
            4_000 <= self.sampling_rate <= 384_000,
            f"sampling_rate must be 4000 to 384000 Hz, not {self.sampling_rate}",
        )
        for name, value, low, high in (
            ("window_seconds", self.window_seconds, 0.1, 60.0),
            ("window_hop_seconds", self.window_hop_seconds, 0.01, self.window_seconds),
            ("top_db", self.top_db, 1.0, 200.0),
            ("floor", self.floor, 0.0, 0.9),
            ("n_fft", self.n_fft, 16, 16_384),
            ("win_length", self.win_length, 16, self.n_fft),
            ("hop_length", self.hop_length, 1, self.win_length),
            ("n_mels", self.n_mels, 4, 512),
            ("columns", self.columns or 4, 4, 2048),
        ):
            _require(low <= value <= high, f"{name} must be from {low} to {high}, not {shown(value)}")
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
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> FrontendConfig:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused."""
        return _from_dict(cls, values, "frontend config")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a `SpectrogramViT`. The defaults are the paper's student.

    Raises:
        ConfigError: a value is out of range or two values contradict each other.
    """

    num_classes: int
    """Width of the classification head."""
    image_height: int = 128
    """Rows of the image: Mel bands (*paper*)."""
    image_width: int = 128
    """Columns of the image: moments (*paper*)."""
    patch_height: int = 128
    """Rows per patch; the paper's vertically long patch takes all of them (*paper*)."""
    patch_width: int = 1
    """Columns per patch (*paper*)."""
    dim: int = 256
    """Token width (*paper*)."""
    depth: int = 3
    """Transformer blocks: 3 in the student, 6 in the teacher (*paper*)."""
    heads: int = 5
    """Attention heads (*paper*)."""
    head_dim: int = 64
    """Width of one head (*paper*)."""
    mlp_dim: int = 256
    """Hidden width of a block's MLP (*paper*)."""
    stem: Stem = "none"
    """``conv6``: the teacher's six 3x3 convolutions before patching (*paper*); ``strided``: four light ones instead of
    patching, which is not in the paper."""
    coordinates: bool = False
    """Append row and column coordinates as two channels before patching (*paper*: teacher, "ICE")."""
    pooling: Pooling = "cls"
    """What the head reads. ``cls``: the CLS token (*paper*); ``statistics``: with it, mean and deviation of the tokens
    by their likeness to it; ``stem_statistics``: with these, mean and deviation of what the strided stem gives the
    transformer; ``contour_statistics``: with these, how loudness, brightness and pitch run through the clip. The last
    three are not in the paper."""
    dropout: float = 0.0
    """Share of the values left out behind every residual branch in training (*paper*: none)."""

    def __post_init__(self) -> None:
        _require_choice("stem", self.stem, Stem)
        _require_choice("pooling", self.pooling, Pooling)
        for name, high in (
            ("num_classes", 1000),
            ("image_height", 512),
            ("image_width", 2048),
            ("patch_height", 512),
            ("patch_width", 2048),
            ("dim", 2048),
            ("depth", 48),
            ("heads", 64),
            ("head_dim", 256),
            ("mlp_dim", 8192),
        ):
            value = getattr(self, name)
            _require(1 <= value <= high, f"{name} must be from 1 to {high}, not {shown(value)}")
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
        _require(0.0 <= self.dropout < 1.0, f"dropout must be from 0 to below 1, not {self.dropout}")
        _require(
            self.stem == "strided" or not self.pools_stem, f"{self.pooling} need a strided stem, not stem {self.stem!r}"
        )
        if self.stem == "strided":
            _require(not self.coordinates, "a strided stem takes no coordinates")
            widths = [2**count for count in range(len(STRIDED_CHANNELS) + 1)]
            _require(
                self.patch_height == self.image_height and self.patch_width in widths,
                f"a strided stem makes tokens of {self.image_height} rows and {', '.join(map(str, widths))} columns, "
                f"not of {self.patch_height} x {self.patch_width}: set patch_height and patch_width so",
            )
            _require(
                self.image_height % self._row_stride == 0, f"image_height must be a multiple of {self._row_stride}"
            )

    @classmethod
    def student(cls, num_classes: int) -> ModelConfig:
        """Return the paper's student: no stem, no position, 3 blocks."""
        return cls(num_classes=num_classes)

    @classmethod
    def teacher(cls, num_classes: int) -> ModelConfig:
        """Return the paper's teacher: convolutional stem, coordinates, 6 blocks."""
        return cls(num_classes=num_classes, depth=6, stem="conv6", coordinates=True)

    @classmethod
    def compact(cls, num_classes: int) -> ModelConfig:
        """Return this project's own student: a strided stem, 2 narrower blocks, statistics over time, no position."""
        return cls(
            num_classes=num_classes,
            stem="strided",
            patch_width=4,
            dim=192,
            depth=2,
            heads=4,
            head_dim=48,
            mlp_dim=384,
            pooling="statistics",
            dropout=0.1,
        )

    @property
    def _row_stride(self) -> int:
        return int(2 ** len(STRIDED_CHANNELS))

    @property
    def channels(self) -> int:
        """Channels of the image that is cut into patches."""
        return 3 if self.coordinates else 1

    @property
    def embedding_dim(self) -> int:
        """Values in the embedding that the head reads."""
        width = self.dim * (1 if self.pooling == "cls" else 3)
        return width + (2 * self.patch_dim if self.pools_stem else 0) + self.contour_dim

    @property
    def pools_stem(self) -> bool:
        """Whether the head also reads statistics of the strided stem's output."""
        return self.pooling in ("stem_statistics", "contour_statistics")

    @property
    def contour_dim(self) -> int:
        """Values at the end of the embedding that are statistics of contours."""
        return CONTOUR_STATISTICS if self.pooling == "contour_statistics" else 0

    @property
    def collapsible(self) -> bool:
        """Whether all patches of padding are one and the same token: the network sees neither place nor neighbours."""
        return self.stem == "none" and not self.coordinates

    @property
    def patch_dim(self) -> int:
        """Values in one flattened patch, behind the stem."""
        if self.stem == "strided":
            return STRIDED_CHANNELS[-1] * (self.image_height // self._row_stride)
        return self.patch_height * self.patch_width * self.channels

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> ModelConfig:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused."""
        if isinstance(values, Mapping) and "num_classes" not in values:
            raise ConfigError("model config lacks num_classes")
        return _from_dict(cls, values, "model config")


@dataclass(frozen=True, kw_only=True)
class FrameViTConfig:
    """Shape of a `FrameViT`. The defaults are those of the model ``base``.

    Raises:
        ConfigError: a value is out of range or two values contradict each other.
    """

    num_classes: int
    """Width of the classification head."""
    n_mels: int = 80
    """Mel bands of the image."""
    stem: int = 512
    """Channels between the two convolutions of the stem."""
    dim: int = 512
    """Token width."""
    depth: int = 3
    """Blocks."""
    heads: int = 8
    """Attention heads; they share `dim`."""
    mlp_dim: int = 2048
    """Hidden width of a block's MLP."""
    taps: int = 15
    """Tokens that the convolution of a block sees, an odd number: 15 are 0.3 s."""
    pooled: tuple[int, ...] = (2, 3)
    """Blocks whose mean and deviation over time the head reads, counted from 1."""

    def __post_init__(self) -> None:
        for name, high in (
            ("num_classes", 1000),
            ("n_mels", 512),
            ("stem", 2048),
            ("dim", 2048),
            ("depth", 48),
            ("heads", 64),
            ("mlp_dim", 8192),
            ("taps", 255),
        ):
            value = getattr(self, name)
            _require(1 <= value <= high, f"{name} must be from 1 to {high}, not {shown(value)}")
        _require(self.dim % self.heads == 0, f"dim {self.dim} is not a multiple of heads {self.heads}")
        _require(self.taps % 2 == 1, f"taps must be odd, not {self.taps}")
        blocks = range(1, self.depth + 1)
        _require(
            len(self.pooled) > 0 and set(self.pooled) <= set(blocks) and sorted(set(self.pooled)) == list(self.pooled),
            f"pooled must be ascending numbers of blocks from 1 to {self.depth}, not {shown(list(self.pooled))}",
        )

    @classmethod
    def base(cls, num_classes: int) -> FrameViTConfig:
        """Return the shape of the model ``base``: 10 million parameters."""
        return cls(num_classes=num_classes)

    @classmethod
    def small(cls, num_classes: int) -> FrameViTConfig:
        """Return the shape of the model ``small``: 1.5 million parameters."""
        return cls(num_classes=num_classes, stem=128, dim=192, heads=3, mlp_dim=768)

    @property
    def embedding_dim(self) -> int:
        """Values in the embedding that the head reads."""
        return 2 * len(self.pooled) * self.dim

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types; ``network`` tells them from those of a `ModelConfig`."""
        return {"network": FRAME_VIT, **dataclasses.asdict(self), "pooled": list(self.pooled)}

    @classmethod
    def from_dict(cls, values: object) -> FrameViTConfig:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused."""
        if isinstance(values, Mapping):
            values = {key: value for key, value in values.items() if key != "network"}
            if "num_classes" not in values:
                raise ConfigError("model config lacks num_classes")
        return _from_dict(cls, values, "model config")


def network_from_dict(values: object) -> ModelConfig | FrameViTConfig:
    """Build the configuration of a network from parsed JSON; ``network`` says of which.

    Raises:
        ConfigError: as the two's `from_dict`.
    """
    if isinstance(values, Mapping) and "network" in values:
        if values["network"] != FRAME_VIT:
            raise ConfigError(f"network must be {FRAME_VIT}, not {shown(values['network'])}")
        return FrameViTConfig.from_dict(values)
    return ModelConfig.from_dict(values)


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
    temperature: float = 1.0
    """Logits are divided by this before the softmax; fitted on speakers that the network, or those of a
    cross-validation, had not heard."""

    def __post_init__(self) -> None:
        _require(
            len(set(self.labels)) == len(self.labels) == self.model.num_classes and all(self.labels),
            f"{self.model.num_classes} different non-empty labels are needed, not {shown(list(self.labels))}",
        )
        columns = sorted(TABLE_COLUMNS & set(self.labels))
        _require(not columns, f"labels cannot be called {shown(columns)}, as other columns of a table are: rename them")
        for label in self.labels:  # they come from strangers, and go to terminals, tables and spreadsheets
            _require(
                label.isprintable() and len(label) <= MAX_LABEL and label == label.strip() and label[0] not in FORMULA,
                f"a label must be printable, at most {MAX_LABEL} characters, without space around it, and not begin "
                f"with one of {FORMULA}, as formulas of spreadsheets do, not {shown(label)}: rename it",
            )
        _require(
            1e-3 <= self.temperature <= 1e3,
            f"temperature must be from 0.001 to 1000, not {self.temperature}",
        )
        spectrogram = (self.frontend.n_mels, self.frontend.columns)
        if isinstance(self.model, FrameViTConfig):
            image: tuple[int, int | None] = (self.model.n_mels, None)
            tokens = self.frontend.n_frames // FRAME_STRIDE
            _require(tokens <= MAX_TOKENS, f"{tokens} tokens per window are more than {MAX_TOKENS}: raise hop_length")
        else:
            image = (self.model.image_height, self.model.image_width)
        _require(image == spectrogram, f"the network wants images of {image}, the front-end makes {spectrogram}")

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return {
            "labels": list(self.labels),
            "temperature": self.temperature,
            "frontend": self.frontend.to_dict(),
            "model": self.model.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: object) -> ClassifierConfig:
        """Build from parsed JSON.

        Raises:
            ConfigError: keys are missing or unknown, or a value has the wrong type or is out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"config must be a JSON object, not {type(values).__name__}")
        unknown = sorted(set(values) - {"labels", "temperature", "frontend", "model"})
        missing = sorted({"labels", "model"} - set(values))
        if unknown or missing:
            raise ConfigError(f"config has unknown keys {shown(unknown)} and lacks {missing}")
        labels, temperature = values["labels"], values.get("temperature", 1.0)
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ConfigError(f"labels must be a list of strings, not {shown(labels)}")
        temperature = as_float(temperature)
        if not isinstance(temperature, float):
            raise ConfigError(f"temperature must be a number, not {shown(temperature)}")
        return cls(
            labels=tuple(labels),
            temperature=temperature,
            frontend=FrontendConfig.from_dict(values.get("frontend", {})),
            model=network_from_dict(values["model"]),
        )
