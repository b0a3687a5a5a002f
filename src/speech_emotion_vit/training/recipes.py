"""Recipes: frozen presets of everything that decides what a training run does.

``paper`` follows Kim & Lee as far as they say; ``robust`` is this project's own, for new voices.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from reprlib import repr as shown
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from ..errors import ConfigError
from ..model.config import FrontendConfig, ModelConfig, as_float
from .data.corpora import ORIGINAL
from .data.paper import VERSIONS
from .data.specaugment import Augmentation

Optimizer = Literal["adam", "adamw"]
Schedule = Literal["halving", "cosine"]
Network = Literal["paper", "compact"]

T = TypeVar("T")

PROBED = "crema-d"  # the bundled network that a new head stands on where none is named


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """How one stage is optimised. The defaults are the paper's.

    Raises:
        ConfigError: a value is out of range.
    """

    epochs: int = 50
    """Passes over the training items (*paper*)."""
    batch_size: int = 32
    """Images per step, over all processes (default of the published code)."""
    optimizer: Optimizer = "adam"
    """*paper*: Adam; ``adamw`` decays weights apart from the gradient, which transformers need."""
    learning_rate: float = 1e-4
    """Highest learning rate (*paper*)."""
    beta2: float = 0.999
    """Memory of Adam's second moment; 0.98 forgets the first, wild steps of a transformer sooner."""
    weight_decay: float = 0.0
    """Of matrices only; none was seen in the published code."""
    schedule: Schedule = "halving"
    """``halving``: x 0.5 every `halve_every` epochs (*paper*); ``cosine``: down to 0 at the last step."""
    halve_every: int = 10
    """Epochs between halvings (*paper*)."""
    warmup_epochs: float = 0.0
    """Epochs of linear rise from 0; protects LayerNorm's first steps at a high learning rate."""
    clip_norm: float = 0.0
    """Largest gradient norm; 0: not clipped."""
    average: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is validated and kept; 0: none."""
    patience: int = 0
    """Epochs without a better validation UA after which the stage ends; 0: all epochs are run."""
    keep_best: bool = True
    """Keep the epoch with the best validation UA, else the last. Without validation items always the last."""
    drop: float = 0.0
    """Share of the patches left out at random in every step: regularises, and a step costs that much less."""
    augmented: bool = True
    """Whether the recipe's `Augmentation` is applied."""

    def __post_init__(self) -> None:
        _choice("optimizer", self.optimizer, Optimizer)
        _choice("schedule", self.schedule, Schedule)
        for name, low, high in (
            ("epochs", 1, 100_000),
            ("batch_size", 1, 65_536),
            ("learning_rate", 1e-9, 10.0),
            ("beta2", 0.5, 0.999999),
            ("weight_decay", 0.0, 10.0),
            ("halve_every", 1, 100_000),
            ("warmup_epochs", 0.0, 1000.0),
            ("clip_norm", 0.0, 1e6),
            ("average", 0.0, 0.999999),
            ("patience", 0, 100_000),
            ("drop", 0.0, 0.95),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} must be from {low:g} to {high:g}, not {value}")


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """How the head of a linear probe is fitted.

    Raises:
        ConfigError: a value is out of range.
    """

    copies: int = 16
    """Augmented copies of every training image beside the image itself: the more, the less the answer is luck."""
    copies_weight: float = 1.0
    """Weight of an image's copies together over that of the image itself: they are other voices, but not heard ones."""
    masks: bool = True
    """Whether copies are masked as the recipe's augmentation says."""
    balanced: bool = True
    """Weigh classes inversely to their number of clips, which is what UA asks for."""
    penalties: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Of the ridge regression, per unit of weight: what is tried on clips left out. No wider, for two voices inside a
    fold of SAVEE cannot choose."""
    contour_weight: float = 1.0
    """Variance of the few statistics of contours over that of all else that the head reads, for they tell more than
    their number; 0: it does not read them."""
    keep: float = 0.0
    """Share of the network's own head in the answer, for a network trained on the same labels: the new head reads only
    what that one does not, and the two, each calibrated, err differently. 0: it is replaced."""

    def __post_init__(self) -> None:
        if not 0 <= self.copies <= 100:
            raise ConfigError(f"probe.copies must be from 0 to 100, not {self.copies}")
        for name in ("copies_weight", "contour_weight"):
            value = getattr(self, name)
            if not 0.0 <= value <= 100.0:
                raise ConfigError(f"probe.{name} must be from 0 to 100, not {value}")
        if not self.penalties or not all(0.0 < penalty <= 1e6 for penalty in self.penalties):
            raise ConfigError(f"probe.penalties must be numbers above 0 and up to 1e6, not {shown(self.penalties)}")
        if not 0.0 <= self.keep <= 0.95:
            raise ConfigError(f"probe.keep must be from 0 to 0.95, not {self.keep}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training run does, but the data and the seed.

    Raises:
        ConfigError: a value is out of range or two values contradict each other.
    """

    name: str
    """Name of the preset it started from; part of a folder's name."""
    frontend: FrontendConfig = field(default_factory=FrontendConfig)
    """How waveforms become images."""
    versions: tuple[str, ...] = (ORIGINAL,)
    """Versions of every training recording: names from `data.paper.VERSIONS`."""
    validation: bool = True
    """Whether validation speakers are held out. If not they train too, which three other speakers of SAVEE can do with:
    the last epoch is kept, and the folds of a cross-validation are calibrated by each other."""
    repeats: int = 1
    """How often an epoch shows the clips of all corpora of a mixture but its largest."""
    patch_height: int = 128
    """Rows per patch of the ``paper`` networks (*paper*: all)."""
    patch_width: int = 1
    """Columns per patch of the ``paper`` networks (*paper*)."""
    compact_patch_width: int = 4
    """Columns per token of a ``compact`` network: fewer see more detail and cost more."""
    student_network: Network = "paper"
    """``paper``: the published student; ``compact``: this project's own, with a strided stem."""
    teacher_network: Network = "paper"
    """``paper``: the published teacher; ``compact``: this project's own student as the teacher."""
    teacher_stem: bool = True
    """Whether the paper's teacher has its convolutional stem (*paper*)."""
    teacher_coordinates: bool = True
    """Whether the paper's teacher sees image coordinates (*paper*)."""
    initial_weights: str = ""
    """Model whose weights every network of the same shape starts from, by name, folder or file; the head only where
    the labels are the same. Empty: random weights."""
    teachers: tuple[str, ...] = ()
    """Models whose mean answer is a further target of a network trained alone (stage ``supervised``), each by name,
    folder or file, with the same labels and front-end: several that err differently know more than each of them."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """What is done to the images of a batch (*paper*: nothing)."""
    teacher_augmentation: Augmentation = field(default_factory=Augmentation)
    """The same for the teacher's stage: a network that hears order learns from other changes than one that does not."""
    label_smoothing: float = 0.0
    """Share of every target spread over all classes: actors' intentions are often not heard."""
    balanced: bool = False
    """Weigh classes inversely to their number of items, which is what UA asks for."""
    alpha: float = 10.0
    """Weight of the L1 distance to the teacher in the student's stage (*paper*)."""
    soft_weight: float = 0.0
    """Weight of the teacher's soft labels in the student's stage, and of the `teachers`' (*paper*: none)."""
    soft_temperature: float = 2.0
    """What softens the teacher's labels."""
    temperature_factor: float = 1.0
    """What the temperature that fits the validation clips is multiplied by, where their speakers are known to be easier
    than others are: eighteen tell a temperature to a tenth only."""
    teacher: StageSettings = field(default_factory=StageSettings)
    """First stage: the teacher, cross-entropy."""
    match: StageSettings = field(default_factory=StageSettings)
    """Second stage: the student's feature towards the teacher's."""
    student: StageSettings = field(default_factory=StageSettings)
    """Third stage: the student, cross-entropy and matching."""
    supervised: StageSettings = field(default_factory=StageSettings)
    """Instead of the three: the student alone, without a teacher."""
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    """Instead of the three: a new head for `initial_weights`, or the default model, which stay as they are."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.name) or not self.name.strip("."):
            raise ConfigError(f"name must be 1 to 64 letters, digits and _.-, not dots alone, not {shown(self.name)}")
        _choice("student_network", self.student_network, Network)
        _choice("teacher_network", self.teacher_network, Network)
        if ORIGINAL not in self.versions or len(set(self.versions)) != len(self.versions):
            raise ConfigError(f"versions must be different and contain {ORIGINAL}, not {shown(self.versions)}")
        if not set(self.versions) <= set(VERSIONS):
            raise ConfigError(f"versions must be of {', '.join(VERSIONS)}, not {shown(self.versions)}")
        if not 1 <= self.repeats <= 100:
            raise ConfigError(f"repeats must be from 1 to 100, not {self.repeats}")
        for name, high in (
            ("label_smoothing", 0.9),
            ("alpha", 1e6),
            ("soft_weight", 1e6),
            ("soft_temperature", 100),
        ):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ConfigError(f"{name} must be from 0 to {high:g}, not {value}")
        if not 0.5 <= self.temperature_factor <= 2.0:
            raise ConfigError(f"temperature_factor must be from 0.5 to 2, not {self.temperature_factor}")
        if self.soft_temperature == 0:
            raise ConfigError("soft_temperature must be above 0")
        self.student_model(2)
        self.teacher_model(2)

    def student_model(self, num_classes: int) -> ModelConfig:
        """Return the student's shape."""
        if self.student_network == "compact":
            return self._compact(num_classes)
        return dataclasses.replace(ModelConfig.student(num_classes), **self._image())

    def teacher_model(self, num_classes: int) -> ModelConfig:
        """Return the teacher's shape."""
        if self.teacher_network == "compact":
            return self._compact(num_classes)
        return dataclasses.replace(
            ModelConfig.teacher(num_classes),
            stem="conv6" if self.teacher_stem else "none",
            coordinates=self.teacher_coordinates,
            **self._image(),
        )

    def _compact(self, num_classes: int) -> ModelConfig:
        bands, columns = self.frontend.n_mels, self.frontend.columns or 0  # none is refused
        return dataclasses.replace(
            ModelConfig.compact(num_classes),
            image_height=bands,
            image_width=columns,
            patch_height=bands,
            patch_width=self.compact_patch_width,
        )

    def _image(self) -> dict[str, Any]:
        return {
            "image_height": self.frontend.n_mels,
            "image_width": self.frontend.columns,
            "patch_height": self.patch_height,
            "patch_width": self.patch_width,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        values = dataclasses.asdict(self)
        values |= {"versions": list(self.versions), "teachers": list(self.teachers)}
        values["probe"]["penalties"] = list(self.probe.penalties)
        return values

    @classmethod
    def from_dict(cls, values: object) -> Recipe:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused.

        Raises:
            ConfigError: a key is unknown, or a value has the wrong type or is out of range.
        """
        return _build(cls, values, "recipe")

    def with_values(self, assignments: Mapping[str, str]) -> Recipe:
        """Return a copy with values replaced by dotted name, ``{"student.learning_rate": "3e-4"}``.

        A value is read as JSON where it is JSON, else as a string.

        Raises:
            ConfigError: there is no such name, or the value does not fit.
        """
        values = self.to_dict()
        for name, text in assignments.items():
            *path, last = name.split(".")
            target: Any = values
            for part in path:
                target = target.get(part) if isinstance(target, dict) else None
            if not isinstance(target, dict) or last not in target:
                raise ConfigError(f"the recipe has no value {name!r}: it has {', '.join(self.value_names())}")
            try:
                target[last] = json.loads(text)
            except (ValueError, RecursionError):
                target[last] = text
        return self.from_dict(values)

    def value_names(self) -> list[str]:
        """Return the dotted names of all values."""

        def walk(values: Mapping[str, Any], prefix: str) -> list[str]:
            found = []
            for name, value in values.items():
                found += walk(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
            return found

        return walk(self.to_dict(), "")


def _choice(name: str, value: object, choices: object) -> None:
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}")


_LISTS: Mapping[object, tuple[type, str]] = {
    tuple[int, ...]: (int, "whole numbers"),
    tuple[float, ...]: (float, "numbers"),
    tuple[str, ...]: (str, "names"),
}


def _build(cls: type[T], values: object, what: str) -> T:
    """Build the dataclass `cls`, and those inside it, from parsed JSON."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} must be a JSON object, not {type(values).__name__}")
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{what} has unknown keys {unknown}: this version knows {sorted(hints)}")
    checked: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        if hint is FrontendConfig:
            value = FrontendConfig.from_dict(value)
        elif dataclasses.is_dataclass(hint):
            value = _build(hint, value, f"{what}: {name}")  # type: ignore[arg-type]
        elif hint in _LISTS:
            kind, said = _LISTS[hint]
            items = value if isinstance(value, (list, tuple)) else (None,)
            items = tuple(as_float(item) if kind is float else item for item in items)
            if not all(type(item) is kind for item in items):
                raise ConfigError(f"{what}: {name} must be a list of {said}, not {shown(value)}")
            value = items
        else:
            expected = hint if isinstance(hint, type) else str
            if expected is float:
                value = as_float(value)
            if type(value) is not expected:
                raise ConfigError(f"{what}: {name} must be {expected.__name__}, not {shown(value)}")
        checked[name] = value
    try:
        return cls(**checked)
    except TypeError as error:
        raise ConfigError(f"{what}: {error}") from error


_COMPACT = StageSettings(
    epochs=60,
    optimizer="adamw",
    learning_rate=1e-3,
    beta2=0.98,
    weight_decay=0.05,
    schedule="cosine",
    warmup_epochs=2.0,
    clip_norm=1.0,
    average=0.995,
)
_VOICES = Augmentation(
    frequency_warp=0.06,
    frequency_shift=0.6,
    time_warp=0.1,
    equalizer=0.05,
    frequency_masks=2,
    frequency_mask_bands=24,
    time_masks=2,
    time_mask_columns=16,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "paper": Recipe(
            name="paper",
            frontend=FrontendConfig(long_clips="truncate"),
            versions=tuple(VERSIONS),
        ),
        "robust": Recipe(
            name="robust",
            frontend=FrontendConfig(hop_length=256),  # a quarter of the frames, for the same validation score
            repeats=3,
            teacher_network="compact",
            student_network="compact",
            augmentation=_VOICES,
            teacher_augmentation=_VOICES,
            label_smoothing=0.05,
            alpha=1.0,
            soft_weight=1.0,
            teacher=_COMPACT,
            match=dataclasses.replace(_COMPACT, epochs=3, warmup_epochs=1.0, keep_best=False),
            student=_COMPACT,
            supervised=_COMPACT,
        ),
    }
)
