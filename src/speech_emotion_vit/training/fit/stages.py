"""The stages of a run, in order: what each minimises, what it needs, and which network it hands to the next.

=================== ================================================ ==================================
``teacher``         `Supervised`                                     cross-entropy
``match``           `FeatureMatching`                                L1 to the teacher's feature
``student``         `Distillation`                                   cross-entropy + alpha L1
``frames``          `frames.FrameMatching`                           L1 to a speech encoder's tokens
``narrow``          `narrow.Narrowing`                               L1 to a wider network's tokens
``head``            `head.fit_head`                                  ridge regression, or cross-entropy
=================== ================================================ ==================================

A stage maps a batch to a dict of losses; their sum is minimised by `loop.fit`. A teacher's features are computed before
the stage begins, so nothing can train the teacher.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigError, quoted
from ...model.build import Network, build_network
from ...model.frame_vit import FrameViT
from ...weights.checkpoint import load_network, without_head
from ...weights.resolve import resolve_model
from ..data.features import Dataset, default_cache, load_waveforms, read_audio
from ..data.protocols import Fold, Protocol
from ..data.rows import Indices, Rows, make_rows, restrict
from ..recipes import (
    FramesStage,
    GradientStage,
    HeadStage,
    MatchStage,
    NarrowStage,
    Recipe,
    StudentStage,
    TeacherStage,
)
from ..score.evaluate import Record, score_rows, validation_record
from . import frames
from .head import embed_rows, fit_head
from .loop import Job, fit, load_state, restoring, save_state, seed_of
from .narrow import Narrowing
from .teacher import SpeechEncoder, digest_of, read_teacher

if TYPE_CHECKING:
    from accelerate import Accelerator

STEM_PIECE = 4  # images: what the paper's stem makes of more, 4 MiB each and layer, does not fit a processor's cache

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """A batch of labelled clips; tensors on one device."""

    inputs: tuple[Tensor, ...]
    """The arguments of the network's `embed`."""
    targets: Tensor
    """Classes `[batch]`."""
    mask: Tensor | None
    """Which classes each clip can have `[batch, classes]`; None: all can have all."""
    reference: Tensor | None
    """The features to match `[batch, dim]`; None: no feature is matched."""


class Supervised(nn.Module):
    """Cross-entropy of a network.

    Args:
        network: the network to train.
        rows: its training rows.
        reference: features `[rows, dim]` for a stage that matches them.
    """

    def __init__(self, network: Network, rows: Rows, *, reference: Tensor | None = None) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)
        self.rows = rows
        self.reference = reference
        # No norm of that stem depends on the batch, so the gradients of pieces add up to that of the batch.
        piecewise = getattr(network.config, "stem", None) == "conv6" and rows.device.type == "cpu"
        self.piece = STEM_PIECE if piecewise else len(rows)

    def batches(self, size: int, rng: np.random.Generator) -> list[Indices]:
        """Return all rows once, in batches of nearly equal size whose rows are of similar length."""
        return self.rows.shuffled(size, rng)

    def batch(self, rows: Indices, seed: int) -> Batch:
        """Return what is learnt from some rows."""
        reference = self.reference
        return Batch(
            inputs=self.rows.inputs(rows),
            targets=torch.from_numpy(self.rows.targets[rows]).to(self.rows.device),
            mask=self.rows.mask(rows),
            reference=None if reference is None else reference[torch.from_numpy(rows)].to(self.rows.device),
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        return {"cross_entropy": self._cross_entropy(self.network.embed(*batch.inputs), batch)}

    def _cross_entropy(self, embedding: Tensor, batch: Batch) -> Tensor:
        logits = restrict(self.network.head(embedding).float(), batch.mask)
        return functional.cross_entropy(logits, batch.targets)


class FeatureMatching(Supervised):
    """L1 distance of the network's feature to a teacher's; its head is not trained."""

    def __init__(self, network: Network, rows: Rows, reference: Tensor) -> None:
        super().__init__(network, rows, reference=reference)
        network.head.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        return {"matching": feature_distance(self.network.embed(*batch.inputs), batch.reference)}


class Distillation(Supervised):
    """Cross-entropy and L1 to a teacher's feature.

    Args:
        network: the student.
        rows: its training rows.
        reference: the teacher's features `[rows, dim]`.
        alpha: weight of the L1 distance.
    """

    def __init__(self, network: Network, rows: Rows, reference: Tensor, *, alpha: float) -> None:
        super().__init__(network, rows, reference=reference)
        self.alpha = alpha

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of `batch`."""
        embedding = self.network.embed(*batch.inputs)
        return {
            "cross_entropy": self._cross_entropy(embedding, batch),
            "matching": self.alpha * feature_distance(embedding, batch.reference),
        }


def feature_distance(embedding: Tensor, reference: Tensor | None) -> Tensor:
    """Return the mean absolute difference (L1) of features `[batch, dim]`: the paper's feature-map matching."""
    assert reference is not None
    return (embedding.float() - reference.float()).abs().mean()


@dataclass(frozen=True, kw_only=True)
class Run:
    """The training of one split."""

    data: Dataset
    """The corpus and its features."""
    data_dir: Path
    """Its folder; audio that needs no labels lies there, too."""
    recipe: Recipe
    """How it is trained."""
    protocol: Protocol
    """How it is split."""
    fold: Fold
    """Which fold, where the protocol has some."""
    seed: int
    """Of everything random."""
    folder: Path
    """Where the results go."""
    shared: Path
    """Folder of what does not depend on labels, so that folds compute it once."""
    teacher: Path | None
    """Where the speech encoder is; None: on the Hub."""
    cache: Path | None
    """Of features."""
    resume: bool = False
    """Whether to go on with the run in the folder."""
    temperature: float | None = None
    """Used if there are no clips to fit it on."""


class Stages:
    """The stages of a run, in order, each handing its networks to the next.

    Args:
        run: data, recipe and folders.
        rows: ``train`` and ``validation``.
        classes: number of labels.
        accelerator: device, precision and processes.
    """

    def __init__(self, run: Run, rows: Mapping[str, Rows], classes: int, accelerator: Accelerator) -> None:
        self._run, self.rows, self.classes, self.accelerator = run, rows, classes, accelerator
        self.networks: dict[str, Network] = {}
        self.history: dict[str, list[Record]] = {}
        self.features: Tensor | None = None  # the teacher's, of all training rows
        self.board: Any = None  # TensorBoard's

    def run(self) -> dict[str, list[Record]]:
        """Go through all stages and return their records."""
        from torch.utils.tensorboard import SummaryWriter

        steps: dict[type[Any], Callable[[Any], None]] = {
            TeacherStage: self._teacher,
            MatchStage: self._match,
            StudentStage: self._distil,
            FramesStage: self._frames,
            NarrowStage: self._narrow,
            HeadStage: self._head,
        }
        folder = str(self._run.folder / "tensorboard")
        with SummaryWriter(folder) if self.accelerator.is_main_process else nullcontext() as self.board:
            for settings in self._run.recipe.stages:
                steps[type(settings)](settings)
        return self.history

    def _log(self, name: str, value: float, epoch: int) -> None:
        if self.board is not None:
            self.board.add_scalar(name, value, epoch)

    def _teacher(self, settings: TeacherStage) -> None:
        shape = self._run.recipe.teacher(self.classes)
        network = self.networks["teacher"] = self._initial(shape, "teacher")
        self._fit(Supervised(network, self.rows["train"]), settings)

    def _match(self, settings: MatchStage) -> None:
        reference = self._reference(settings.name)
        self._student().head.load_state_dict(self.networks["teacher"].head.state_dict())  # of that feature
        # The last epoch is kept, because scores of a head that is not trained cannot choose one.
        self._fit(FeatureMatching(self._student(), self.rows["train"], reference), settings)

    def _distil(self, settings: StudentStage) -> None:
        if not settings.alpha:
            self._fit(Supervised(self._student(), self.rows["train"]), settings)
            return
        reference = self._reference(settings.name)
        if MatchStage not in map(type, self._run.recipe.stages):
            self._student().head.load_state_dict(self.networks["teacher"].head.state_dict())
        self._fit(Distillation(self._student(), self.rows["train"], reference, alpha=settings.alpha), settings)

    def _frames(self, settings: FramesStage) -> None:
        run, network = self._run, self._student()
        assert isinstance(network, FrameViT)
        if self._complete(settings.name):
            return
        tensors = read_teacher(run.teacher)
        dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else torch.float32
        encoder = SpeechEncoder(
            tensors, layers=max(layer for _, layer in frames.TARGETS), device=self.accelerator.device, dtype=dtype
        )
        frames.warm_start(network, tensors)
        examples = self._examples(settings.audio)
        stage = frames.FrameMatching(network, encoder, examples, run.recipe.frontend, device=self.accelerator.device)
        self._fit(stage, settings, folder=run.shared / "state")

    def _narrow(self, settings: NarrowStage) -> None:
        if self._complete(settings.name):
            return
        run, device = self._run, self.accelerator.device
        if not run.recipe.start:
            raise ConfigError(f"stage {settings.name} needs a model to take a part of: set start")
        wide, _ = load_network(resolve_model(run.recipe.start))
        if not isinstance(wide, FrameViT):
            raise ConfigError(f"start {quoted(run.recipe.start)} is no FrameViT: name one, such as base")
        network = self._student()
        assert isinstance(network, FrameViT)
        stage = Narrowing(
            network,
            wide.to(device),
            self._examples(settings.audio),
            run.recipe.frontend,
            size=settings.batch_size,
            seed=run.seed,
            cache=run.cache or default_cache(),
            device=device,
        )
        self._fit(stage, settings, folder=run.shared / "state")

    def _examples(self, audio: tuple[str, ...]) -> frames.Examples:
        run = self._run
        with self.accelerator.main_process_first():
            rate = run.recipe.frontend.sampling_rate
            return frames.Examples(
                load_waveforms(read_audio(audio, run.data_dir), rate, cache=run.cache, title="audio")
            )

    def _complete(self, name: str) -> bool:
        """Load what a stage left in an earlier run or fold, where it came to its end."""
        path = self._run.shared / "state" / f"{name}.state.safetensors"
        if not path.is_file():
            return False
        groups, progress = load_state(path)
        if not progress.get("done"):
            return False
        network = self._student()
        with restoring(path):
            # The head has learnt nothing, and may be for other labels.
            network.load_state_dict(network.state_dict() | without_head(groups["kept"]))
            self.history[name] = list(progress["history"])
        logger.info("%s: is complete", name)
        return True

    def _head(self, settings: HeadStage) -> None:
        run, network = self._run, self._student()
        path = run.folder / "state" / f"{settings.name}.state.safetensors"
        if path.is_file():
            groups, record = load_state(path)
            with restoring(path):
                network.head.load_state_dict(groups["head"])
                if not all(map(math.isfinite, record.values())) or "seconds" not in record:
                    raise ValueError(f"no record of a head: {record}")
                if record["clips"] != len(self.rows["train"].clip_targets):
                    raise ValueError(f"it was fitted to {record['clips']} clips")
        else:
            # Left out in turn is what the score will be about: speakers, or clips of known speakers.
            known = run.protocol not in ("speaker", "corpus")
            left_out = [clip.recording if known else clip.speaker for clip in self.rows["train"].utterances]
            record = fit_head(network, self.rows["train"], left_out, settings, run.seed, embeddings=self._embeddings())
            if self.accelerator.is_main_process:
                path.parent.mkdir(parents=True, exist_ok=True)
                save_state(path, {"head": network.head.state_dict()}, record)
        self.history[settings.name] = [record]
        for key, value in record.items():
            self._log(f"{settings.name}/{key}", value, 1)
        logger.info("%s: UA %.1f %% on training clips left out", settings.name, 100 * record["left_out_ua"])

    def _embeddings(self) -> Tensor:
        """Return the embeddings of the training rows; folds share those of all clips, which are computed once."""
        run, network, train = self._run, self._student().eval(), self.rows["train"]
        if run.shared == run.folder:
            return embed_rows(network, train, accelerator=self.accelerator)
        clips = [clip.altered(version) for version in run.recipe.versions for clip in run.data.utterances]
        everything = make_rows(
            clips, run.data.features, run.data.labels, run.recipe.frontend, device=self.accelerator.device
        )
        body = without_head(network.state_dict())
        path = run.shared / "state" / f"embeddings-{digest_of(body)[:16]}-{run.data.features.key}.safetensors"
        if path.is_file():
            groups, _ = load_state(path)
            found = groups["embeddings"]["values"]
        else:
            found = embed_rows(network, everything, accelerator=self.accelerator)
            if self.accelerator.is_main_process:
                path.parent.mkdir(parents=True, exist_ok=True)
                save_state(path, {"embeddings": {"values": found}}, {})
        rows: dict[str, list[int]] = {}
        for row, clip in enumerate(everything.owners):
            rows.setdefault(everything.utterances[clip].id, []).append(row)
        with restoring(path):
            return found[[row for clip in train.utterances for row in rows[clip.id]]]

    def _fit(self, stage: nn.Module, settings: GradientStage, *, folder: Path | None = None) -> None:
        rows = self.rows["validation"]

        def validate() -> Record:
            return validation_record(score_rows(stage.network, rows, self.accelerator), rows)  # type: ignore[arg-type]

        job = Job(
            settings=settings,
            seed=self._run.seed,
            folder=folder or self._run.folder / "state",
            validate=validate if settings.validated and len(rows) else None,
            log=self._log,
        )
        self.history[settings.name] = fit(stage, job, self.accelerator)

    def _student(self) -> Network:
        if "student" not in self.networks:
            recipe = self._run.recipe
            network = self._initial(recipe.network(self.classes), "student")
            if recipe.start and recipe.stage(NarrowStage) is None:
                start_from(network, recipe.start)
            self.networks["student"] = network
        return self.networks["student"]

    def _reference(self, name: str) -> Tensor:
        """Return the teacher's features of all training rows `[rows, dim]`."""
        if "teacher" not in self.networks:
            raise ConfigError(f"stage {name} needs stage teacher: name it in --stages, too")
        if self.features is None:
            self.features = embed_rows(self.networks["teacher"], self.rows["train"], accelerator=self.accelerator)
        return self.features

    def _initial(self, shape: Any, role: str) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self._run.seed, role))
            return build_network(shape).to(self.accelerator.device)


def start_from(network: Network, model: str) -> None:
    """Give a network the weights of a model, except those of the head.

    Raises:
        WeightsError: the model cannot be found, verified or read.
        ConfigError: it has another shape.
    """
    source, config = load_network(resolve_model(model))
    if _without_head(config.model) != _without_head(network.config):
        raise ConfigError(
            f"{model}: its network is {config.model}, that of the recipe {network.config}: set start anew"
        )
    network.load_state_dict(network.state_dict() | without_head(source.state_dict()))


def _without_head(config: Any) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in ("num_classes", "head_hidden")}
