"""Recipes: a front-end, a network and a list of stages. All else about a training is a constant beside the code.

``paper`` follows Kim & Lee as far as they say. The others make the models of their names.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

from ..decoding import check, decode
from ..errors import ConfigError, quoted
from ..model.config import FrameViTConfig, FrontendConfig, ModelConfig, network_from_dict
from .data.augment import VERSIONS
from .data.corpora import FREE, LABELLED, ORIGINAL
from .data.features import NetworkConfig

if TYPE_CHECKING:
    from msgspec import Meta

Precision = Literal["no", "bf16"]
Schedule = Literal["halving", "cosine"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a training.

    Raises:
        ConfigError: a value is out of range.
    """

    name = ""  # on the command line and in every record
    validated = False  # whether it keeps its best epoch, by validation clips

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class GradientStage(Stage):
    """A stage that the loop runs: passes over data, one step per batch. The defaults are the paper's."""

    epochs: Annotated[int, Meta(ge=1, le=100_000)] = 50
    """Passes over the training clips (*paper*)."""
    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 32
    """Clips per step, over all processes (default of the published code)."""
    learning_rate: Annotated[float, Meta(ge=1e-9, le=10)] = 1e-4
    """Highest learning rate (*paper*)."""
    schedule: Schedule = "halving"
    """``halving``: x 0.5 every 10 epochs (*paper*); ``cosine``: a linear rise, then down along half a cosine."""


@dataclass(frozen=True, kw_only=True)
class TeacherStage(GradientStage):
    """The paper's teacher, by cross-entropy."""

    name = "teacher"
    validated = True
    stem: bool = True
    """Whether it has its convolutional stem (*paper*)."""
    coordinates: bool = True
    """Whether it sees image coordinates (*paper*)."""


@dataclass(frozen=True, kw_only=True)
class MatchStage(GradientStage):
    """The student's feature towards the teacher's, by L1; its head, which is the teacher's, rests."""

    name = "match"


@dataclass(frozen=True, kw_only=True)
class StudentStage(GradientStage):
    """The student, by cross-entropy and L1 to the teacher's feature."""

    name = "student"
    validated = True
    alpha: Annotated[float, Meta(ge=0, le=1e6)] = 10.0
    """Weight of the L1 distance (*paper*); 0: the student alone, which needs no teacher."""


@dataclass(frozen=True, kw_only=True)
class AudioStage(GradientStage):
    """A stage that needs audio and no labels."""

    batch_size: Annotated[int, Meta(ge=1, le=65_536)] = 16
    """Examples per step, over all processes."""
    schedule: Schedule = "cosine"
    """As in `GradientStage`."""
    audio: tuple[str, ...] = ("crema-d", "wakewords", "voices", "synthetic")
    """Folders of the audio: corpora without their official test speakers, or any folder."""


@dataclass(frozen=True, kw_only=True)
class FramesStage(AudioStage):
    """Frame by frame towards a frozen speech encoder, by L1."""

    name = "frames"
    epochs: Annotated[int, Meta(ge=1, le=100_000)] = 3
    """Passes over the clips, each of which is altered anew every time."""
    learning_rate: Annotated[float, Meta(ge=1e-9, le=10)] = 3e-4
    """Highest learning rate."""


@dataclass(frozen=True, kw_only=True)
class NarrowStage(AudioStage):
    """A narrower student starts as a part of the model that the recipe starts from, and learns its frames by L1."""

    name = "narrow"
    epochs: Annotated[int, Meta(ge=1, le=100_000)] = 4
    """Passes over the examples, which are made once."""
    learning_rate: Annotated[float, Meta(ge=1e-9, le=10)] = 8e-4
    """Highest learning rate."""


@dataclass(frozen=True, kw_only=True)
class HeadStage(Stage):
    """A new head; all else stays as it is. Ridge regression fits a linear one.

    One with a hidden layer is trained (`fit.perceptron`).
    """

    name = "head"
    penalties: tuple[Annotated[float, Meta(ge=1e-300, le=1e6)], ...] = (1.0,)
    """Of the squared weights of a linear head, per clip, on standardised embeddings; of several the best is chosen on
    speakers that are left out."""

    dropout: Annotated[float, Meta(ge=0, le=0.95)] = 0.5
    """Share of the inputs, and of the hidden values, of a head with a hidden layer that are dropped in each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.penalties:
            raise ConfigError("penalties must be at least one number")


AnyStage: TypeAlias = TeacherStage | MatchStage | StudentStage | FramesStage | NarrowStage | HeadStage
PAPER_STAGES = (TeacherStage, MatchStage, StudentStage)
FRAME_STAGES = (FramesStage, NarrowStage)
STAGES: Mapping[str, type[AnyStage]] = MappingProxyType(
    {kind.name: kind for kind in (*PAPER_STAGES, *FRAME_STAGES, HeadStage)}
)

# What the data or the front-end decide is no value of a recipe's network.
_DECIDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"frontend": (), "model": ("network", "num_classes", "image_height", "image_width", "n_mels")}
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training run does, except the data and the seed.

    Raises:
        ConfigError: two values contradict each other.
    """

    name: str
    """Name of the preset it started from; part of a folder's name."""
    frontend: FrontendConfig
    """How waveforms become images."""
    model: NetworkConfig
    """The student; the number of classes is that of the data."""
    stages: tuple[AnyStage, ...]
    """What is done, in this order, each stage at most once."""
    start: str = ""
    """Model that the student starts as, except for the head, by name, folder or file; empty: random weights. Stage
    ``narrow`` takes a part of it."""
    corpora: tuple[str, ...] = ()
    """What it learns labels from, in folders of these names; empty: the corpus of ``--dataset``."""
    labels: tuple[str, ...] = ()
    """The only labels it learns; empty: all."""
    versions: tuple[str, ...] = (ORIGINAL,)
    """Versions of every training recording: names from `data.augment.VERSIONS` (*paper*: all)."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.name) or not self.name.strip("."):
            raise ConfigError(f"name must be 1 to 64 letters, digits and _.-, not dots alone, not {quoted(self.name)}")
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"stages must be different ones, at least one, not {quoted(names)}")
        if ORIGINAL not in self.versions or not set(self.versions) <= set(VERSIONS):
            raise ConfigError(
                f"versions must be of {', '.join(VERSIONS)} and contain the first, not {quoted(list(self.versions))}"
            )
        others = FRAME_STAGES if isinstance(self.model, ModelConfig) else PAPER_STAGES
        if wrong := [stage.name for stage in self.stages if isinstance(stage, others)]:
            raise ConfigError(f"stages {', '.join(wrong)} are for another network than {type(self.model).__name__}")
        if len(self.versions) > 1 and isinstance(self.model, FrameViTConfig):
            raise ConfigError(f"versions are of images of one width, which {type(self.model).__name__} does not see")
        self.network(2)

    def network(self, num_classes: int) -> NetworkConfig:
        """Return the student's shape."""
        f = self.frontend
        if isinstance(self.model, FrameViTConfig):
            return dataclasses.replace(self.model, num_classes=num_classes, n_mels=f.n_mels)
        size = {"image_height": f.n_mels, "image_width": f.columns}
        return dataclasses.replace(self.model, num_classes=num_classes, **cast(Any, size))

    def teacher(self, num_classes: int) -> ModelConfig:
        """Return the shape of the paper's teacher.

        Raises:
            ConfigError: there is none.
        """
        stage = self.stage(TeacherStage)
        student = self.network(num_classes)
        if stage is None or not isinstance(student, ModelConfig):
            raise ConfigError(f"recipe {self.name} has no stage teacher: add it")
        paper = ModelConfig.teacher(num_classes)
        stem = paper.stem if stage.stem else "none"
        return dataclasses.replace(student, depth=paper.depth, stem=stem, coordinates=stage.coordinates)

    def stage(self, kind: type[Any]) -> Any:
        """Return the stage of a kind, None where there is none."""
        return next((stage for stage in self.stages if isinstance(stage, kind)), None)

    def only(self, names: tuple[str, ...]) -> Recipe:
        """Return the recipe with the named stages alone.

        Raises:
            ConfigError: it has no such stage.
        """
        known = [stage.name for stage in self.stages]
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(f"recipe {self.name} has no stage {', '.join(unknown)}: it has {', '.join(known)}")
        return dataclasses.replace(self, stages=tuple(stage for stage in self.stages if stage.name in names))

    @property
    def head_alone(self) -> bool:
        """Whether only a head is fitted, so that no epoch is chosen by validation clips: they train, too."""
        return not any(isinstance(stage, GradientStage) for stage in self.stages)

    @property
    def hears_encoder(self) -> bool:
        """Whether a stage needs the speech encoder."""
        return self.stage(FramesStage) is not None

    @property
    def precision(self) -> Precision:
        """In which precision it trains unless told otherwise: students of frames as they were measured."""
        return "no" if isinstance(self.model, ModelConfig) or self.head_alone else "bf16"

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        model = {name: value for name, value in self.model.to_dict().items() if name != "num_classes"}
        plain = {
            "name": self.name,
            "frontend": self.frontend.to_dict(),
            "model": model,
            "stages": [{"stage": stage.name, **dataclasses.asdict(stage)} for stage in self.stages],
            "start": self.start,
            "corpora": self.corpora,
            "labels": self.labels,
            "versions": self.versions,
        }
        values: dict[str, Any] = json.loads(json.dumps(plain))
        return values

    @classmethod
    def from_dict(cls, values: object) -> Recipe:
        """Build from `to_dict`'s result; missing keys take their defaults, unknown keys are refused.

        Raises:
            ConfigError: a key is unknown, or a value has the wrong type or is out of range.
        """
        plain = decode(_Plain, values, "recipe")
        return cls(
            **{name: getattr(plain, name) for name in ("name", "start", "corpora", "labels", "versions")},
            frontend=FrontendConfig.from_dict(plain.frontend),
            model=network_from_dict({**plain.model, "num_classes": 2}),
            stages=tuple(map(_stage, plain.stages)),
        )

    def with_values(self, assignments: Mapping[str, str]) -> Recipe:
        """Return a copy with values replaced by dotted name, ``{"student.learning_rate": "3e-4"}``.

        A value is read as JSON where it is JSON, else as a string. Only what this recipe reads can be replaced.

        Raises:
            ConfigError: there is no such name, or the value does not fit.
        """
        values = self.to_dict()
        places = self._places(values)
        # Whether a head has a hidden layer decides which of its values are read: that is known when all are replaced.
        possible = {*self.value_names(), "head.penalties", "head.dropout"}
        for name, text in assignments.items():
            if name not in possible & set(places):
                raise ConfigError(
                    f"recipe {self.name} reads no value {name!r}: it reads {', '.join(self.value_names())}"
                )
            target, key = places[name]
            try:
                target[key] = json.loads(text)
            except (ValueError, RecursionError):
                target[key] = text
        changed = self.from_dict(values)
        known = changed.value_names()
        if unread := [name for name in assignments if name not in known]:
            raise ConfigError(f"recipe {self.name} reads no value {unread[0]!r}: it reads {', '.join(known)}")
        return changed

    def value_names(self) -> list[str]:
        """Return the dotted names of all values that something reads."""
        unread: set[str] = set()
        if isinstance(self.model, FrameViTConfig):
            unread |= {"versions", "frontend.interpolation"}  # of images of one width
            unread |= {"head.penalties"} if self.model.head_hidden else {"head.dropout"}
        else:
            unread |= {"head.dropout"}
        if all(isinstance(stage, TeacherStage) for stage in self.stages):
            unread |= {"start", "model.depth", "model.stem", "model.coordinates"}  # the student's own
        return [name for name in self._places(self.to_dict()) if name not in unread]

    def _places(self, values: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
        """Return where in the recipe's `to_dict` every value is."""
        found = {key: (values, key) for key in ("start", "corpora", "labels", "versions")}
        for part in ("frontend", "model"):
            found |= {f"{part}.{key}": (values[part], key) for key in values[part] if key not in _DECIDED[part]}
        for stage in values["stages"]:
            found |= {f"{stage['stage']}.{key}": (stage, key) for key in stage if key != "stage"}
        return found


@dataclass(frozen=True, kw_only=True)
class _Plain:
    """A recipe as JSON has it."""

    name: str
    frontend: dict[str, Any]
    model: dict[str, Any]
    stages: tuple[dict[str, Any], ...]
    start: str = ""
    corpora: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    versions: tuple[str, ...] = (ORIGINAL,)


def _stage(values: Mapping[str, Any]) -> AnyStage:
    name = values.get("stage")
    if not isinstance(name, str) or name not in STAGES:
        raise ConfigError(f"stage must be one of {', '.join(STAGES)}, not {quoted(name)}")
    try:
        return decode(STAGES[name], {key: value for key, value in values.items() if key != "stage"}, "it")
    except ConfigError as error:
        raise ConfigError(f"stage {name}: {error}") from error


SIX = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
"""CREMA-D's labels: with boredom and surprise, which few clips teach, the free answer on strangers falls."""

_FRAMES = FrontendConfig.frames()

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "paper": Recipe(
            name="paper",
            frontend=FrontendConfig(long_clips="truncate"),
            model=ModelConfig.student(2),
            stages=(TeacherStage(), MatchStage(), StudentStage()),
            versions=tuple(VERSIONS),
        ),
        "base": Recipe(
            name="base",
            frontend=_FRAMES,
            model=FrameViTConfig.base(2),
            stages=(FramesStage(), HeadStage()),
            corpora=FREE,
            labels=SIX,
        ),
        "small": Recipe(
            name="small",
            frontend=_FRAMES,
            model=FrameViTConfig.small(2),
            stages=(NarrowStage(), HeadStage(dropout=0.2)),
            start="base",
            corpora=FREE,
            labels=SIX,
        ),
        "research": Recipe(
            name="research",
            frontend=_FRAMES,
            model=dataclasses.replace(FrameViTConfig.base(2), head_hidden=0),
            stages=(FramesStage(), HeadStage()),
            corpora=LABELLED,
        ),
    }
)
