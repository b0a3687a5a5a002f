"""The stages of a run, in order, each handing its network to the next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, TrainingError
from ...model.config import ModelConfig
from ...model.vit import SpectrogramViT
from ..data.dataset import Dataset
from ..data.protocols import Fold, Protocol
from ..data.rows import Rows
from ..data.specaugment import Augmentation
from ..recipes import Recipe, StageSettings
from ..score.evaluate import SCORE_BATCH, Record
from .head import fit_probe
from .loop import Job, fit, seed_of
from .pretrained import headless, load_teacher, start_from
from .stages import Distillation, FrozenTeacher, Matching, Supervised
from .state import Tensors, load_state, restoring, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator

Stages = Literal["all", "teacher", "match", "student", "supervised", "probe"]
Order = tuple[Literal["teacher", "match", "student", "supervised", "probe"], ...]
ORDER: dict[Stages, Order] = {
    "all": ("teacher", "match", "student"),
    "teacher": ("teacher",),
    "match": ("teacher", "match"),
    "student": ("teacher", "match", "student"),
    "supervised": ("supervised",),
    "probe": ("probe",),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run was asked for."""

    data: Dataset
    """The corpus and its features."""
    protocol: Protocol
    """How it is split."""
    fold: Fold
    """Which fold, where the protocol has some."""
    recipe: Recipe
    """How it is trained."""
    stages: Stages
    """How far."""
    seed: int
    """Of everything random."""
    folder: Path
    """Where the results go."""
    resume: bool = False
    """Whether a run that is there is gone on with."""
    temperature: float | None = None
    """Used where there is nothing to fit it on."""
    say: Callable[[str], None] = field(default=lambda line: None)
    """Gets one line per event."""

    @property
    def mode(self) -> str:
        """``distilled`` where there is a teacher, else the one stage there is."""
        return self.stages if self.stages in ("supervised", "probe") else "distilled"


class StageRunner:
    """The stages of a run, in order, each handing its network to the next."""

    def __init__(self, run: Run, rows: Mapping[str, Rows], accelerator: Accelerator) -> None:
        self.run_, self.rows, self.accelerator = run, rows, accelerator
        self.classes = len(run.data.labels)
        self.networks: dict[str, SpectrogramViT] = {}
        self.teacher: FrozenTeacher | None = None
        self.reference: Tensor | None = None
        self.temperature = run.temperature
        self.class_weights = _class_weights(rows["train"], self.classes) if run.recipe.balanced else None

    def run(self) -> tuple[dict[str, SpectrogramViT], dict[str, list[Record]]]:
        """Return the networks by role and the records by stage."""
        run = self.run_
        history: dict[str, list[Record]] = {}
        log, close = _tensorboard(run.folder, self.accelerator)
        try:
            for name in ORDER[run.stages]:
                if name == "probe":
                    history[name] = self._probe()
                    continue
                if run.stages in ("match", "student") and name != run.stages:
                    _require_complete(run, name)
                settings: StageSettings = getattr(run.recipe, name)
                chosen = run.recipe.teacher_augmentation if name == "teacher" else run.recipe.augmentation
                augmentation = chosen if settings.augmented else Augmentation()
                stage = self._stage(name, settings)
                job = Job(
                    name=name,
                    settings=settings,
                    augmentation=augmentation,
                    num_classes=self.classes,
                    seed=run.seed,
                    train=self.rows["train"],
                    validation=self.rows["validation"],
                    folder=run.folder / "state",
                    reference=None if augmentation.active or self.teacher is None else self._features(self.teacher),
                    say=run.say,
                    log=log,
                )
                history[name] = fit(stage, job, self.accelerator)
        finally:
            close()
        return self.networks, history

    def _probe(self) -> list[Record]:
        run, train = self.run_, self.rows["train"]
        settings = run.recipe.probe
        network, own, name = headless(
            run.recipe.initial_weights or None,
            self.classes,
            run.recipe.frontend,
            contours=settings.contour_weight > 0,
        )
        if settings.keep and own.labels != run.data.labels:
            raise ConfigError(f"probe.keep: {name} knows {', '.join(own.labels)}: its head cannot be kept, set it to 0")
        if settings.keep and own.weight.shape[1] == network.config.embedding_dim:
            raise ConfigError(
                f"probe.keep: the head of {name} reads all there is: there is nothing to add, set it to 0"
            )
        self.networks["student"] = network.to(self.accelerator.device)
        # What is left out in turn is what the score will be about: voices, or clips of known voices.
        what = "speakers" if run.protocol == "speaker" else "clips"
        path = run.folder / "state" / "probe.state.safetensors"
        groups, fitted = load_state(path) if path.is_file() else ({}, {})
        if fitted.get("network") == name:  # else the name stands for another network by now
            _restore_head(network, path, groups.get("head", {}), fitted)
        else:
            augmentation = run.recipe.augmentation
            if not settings.masks:
                augmentation = dataclasses.replace(augmentation, frequency_masks=0, time_masks=0)
            left_out = [clip.speaker if what == "speakers" else clip.recording for clip in train.utterances]
            fitted = {"network": name} | fit_probe(
                network,
                train,
                left_out,
                settings,
                augmentation,
                run.seed,
                own if settings.keep else None,
            )
            if self.accelerator.is_main_process:
                path.parent.mkdir(exist_ok=True)
                save_state(path, {"head": network.head.state_dict()}, fitted)
        record = {key: value for key, value in fitted.items() if key != "network"}
        self.temperature = self.temperature or record["temperature"]
        head = "a head beside that of" if settings.keep else "a new head for"
        run.say(f"probe: {head} {name}, UA {record['left_out_ua']:.1%} on training {what} left out")
        return [record]

    def _stage(self, name: str, settings: StageSettings) -> Supervised | Matching:
        recipe = self.run_.recipe
        role = "teacher" if name == "teacher" else "student"
        if role not in self.networks:
            shape = recipe.teacher_model(self.classes) if role == "teacher" else recipe.student_model(self.classes)
            network = _initial(shape, seed_of(self.run_.seed, role))
            if recipe.initial_weights:
                self.run_.say(f"{role}: {start_from(network, recipe.initial_weights, self.run_.data.labels)}")
            self.networks[role] = network.to(self.accelerator.device)
        network = self.networks[role]
        if name in ("teacher", "supervised"):
            teachers = [self._taught_by(model) for model in recipe.teachers] if name == "supervised" else []
            return Supervised(
                network,
                drop=settings.drop,
                label_smoothing=recipe.label_smoothing,
                class_weights=self.class_weights,
                teachers=teachers,
                soft_weight=recipe.soft_weight,
                soft_temperature=recipe.soft_temperature,
            )
        if self.teacher is None:
            self.teacher = FrozenTeacher(self.networks["teacher"])
            # The student's feature is to be the teacher's, so its head starts as the teacher's.
            network.head.load_state_dict(self.networks["teacher"].head.state_dict())
        if name == "match":
            return Matching(network, self.teacher, drop=settings.drop)
        return Distillation(
            network,
            self.teacher,
            alpha=recipe.alpha,
            soft_weight=recipe.soft_weight,
            soft_temperature=recipe.soft_temperature,
            drop=settings.drop,
            label_smoothing=recipe.label_smoothing,
            class_weights=self.class_weights,
        )

    def _taught_by(self, model: str) -> FrozenTeacher:
        teacher, name = load_teacher(model, self.run_.data.labels, self.run_.recipe.frontend)
        self.run_.say(f"teacher: {name}")
        return teacher.to(self.accelerator.device)

    def _features(self, teacher: FrozenTeacher) -> Tensor:
        """Return the teacher's features of all training rows `[rows, dim]`, computed once, shared by the processes."""
        if self.reference is None:
            rows, accelerator = self.rows["train"], self.accelerator
            width = self.run_.recipe.teacher_model(2).embedding_dim
            reference = torch.zeros(len(rows), width, device=accelerator.device)
            starts = range(0, len(rows), SCORE_BATCH)[accelerator.process_index :: accelerator.num_processes]
            for start in starts:
                batch = np.arange(start, min(start + SCORE_BATCH, len(rows)))
                reference[start : start + len(batch)] = teacher.features(rows.images(batch))
            if accelerator.num_processes > 1:
                reference = accelerator.reduce(reference, reduction="sum")
            self.reference = reference
        return self.reference


def _restore_head(network: SpectrogramViT, path: Path, head: Tensors, fitted: Mapping[str, Any]) -> None:
    """Put a probe's stored head into its network.

    Raises:
        TrainingError: the state is damaged.
    """
    with restoring(path):
        network.head.load_state_dict(head)
        for name in ("temperature", "left_out_ua", "seconds"):
            if not 0 <= fitted[name] < math.inf:
                raise ValueError(f"{name} is {fitted[name]}")


def _require_complete(run: Run, stage: str) -> None:
    path = run.folder / "state" / f"{stage}.state.safetensors"
    if not path.is_file() or not load_state(path)[1].get("done"):
        raise TrainingError(f"{run.folder}: stage {run.stages} needs stage {stage} to be complete: run --stage {stage}")


def _initial(shape: ModelConfig, seed: int) -> SpectrogramViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SpectrogramViT(shape)


def _class_weights(rows: Rows, classes: int) -> Tensor:
    weights = 1.0 / np.bincount(rows.targets, minlength=classes).clip(min=1)
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)


def _tensorboard(
    folder: Path, accelerator: Accelerator
) -> tuple[Callable[[str, float, int], None], Callable[[], None]]:
    if not accelerator.is_main_process:
        return (lambda name, value, epoch: None), (lambda: None)
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))
    return (lambda name, value, epoch: writer.add_scalar(name, value, epoch)), writer.close
