"""The one loop that runs every stage: optimiser, schedule, averaging, early stopping, checkpoints, resuming."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from ...errors import TrainingError
from ...model.vit import SpectrogramViT
from ..data.rows import Indices, Rows
from ..data.specaugment import Augmentation, add_noise_floor, augment
from ..recipes import StageSettings
from ..score.evaluate import Record, score_rows, validation_record
from .stages import Batch
from .state import load_optimizer_tensors, load_state, optimizer_tensors, restoring, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator

STEM_CHUNK = 4  # images: what the paper's stem makes of more, 4 MiB each and layer, does not fit a processor's cache
CHECK_EVERY = 20  # steps between two looks at the loss: a look waits for the device


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that `fit` needs to know about a stage but the stage itself."""

    name: str
    """Of the stage; part of every seed."""
    settings: StageSettings
    """How it is optimised."""
    augmentation: Augmentation
    """What is done to its images."""
    num_classes: int
    """Width of the head."""
    seed: int
    """Of everything random."""
    train: Rows
    """What it is fitted to."""
    validation: Rows
    """What chooses the epoch; may be empty."""
    folder: Path
    """Where its state is kept."""
    reference: Tensor | None = None
    """The teacher's features of the training rows `[rows, dim]`, where the images never change."""
    say: Callable[[str], None] = field(default=lambda line: None)
    """Gets one line per epoch."""
    log: Callable[[str, float, int], None] = field(default=lambda name, value, epoch: None)
    """Gets every number of every epoch."""


def seed_of(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed that depends on all of its arguments."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def learning_rate(settings: StageSettings, epoch: float) -> float:
    """Return the learning rate of the step that completes `epoch` epochs, a fraction within an epoch."""
    s = settings
    warmup = min(1.0, epoch / s.warmup_epochs) if s.warmup_epochs else 1.0
    if s.schedule == "cosine":
        return s.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * min(1.0, epoch / s.epochs)))
    return s.learning_rate * warmup * 0.5 ** (max(0, math.ceil(epoch) - 1) // s.halve_every)


def make_optimizer(stage: nn.Module, settings: StageSettings) -> torch.optim.Optimizer:
    """Return the optimiser of all parameters that want a gradient; only matrices decay."""
    parameters = [p for p in stage.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    make = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return make(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2), fused=True)


def fit(stage: nn.Module, job: Job, accelerator: Accelerator) -> list[Record]:
    """Run a stage, from where its folder says it stopped, and leave the kept weights in ``stage.network``.

    Args:
        stage: one of `stages`; it maps a `Batch` to a dict of losses.
        job: everything else.
        accelerator: device, precision and processes.

    Returns:
        One record of numbers per epoch.

    Raises:
        TrainingError: the loss is not finite, there are fewer rows than processes, or the state cannot be read.
    """
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # dropout draws from the global generators
        return _Fit(stage, job, accelerator).run()


class _Fit:
    """The state of one call of `fit`."""

    def __init__(self, stage: nn.Module, job: Job, accelerator: Accelerator) -> None:
        if len(job.train) < accelerator.num_processes:
            raise TrainingError(
                f"{job.name}: {len(job.train)} training rows are fewer than {accelerator.num_processes} processes"
            )
        self.job, self.accelerator = job, accelerator
        self.network: SpectrogramViT = stage.network  # type: ignore[assignment]
        # No norm of that stem looks at the batch, so gradients of pieces add up to those of the whole.
        piecewise = self.network.config.stem == "conv6" and accelerator.device.type == "cpu"
        self.chunk = STEM_CHUNK if piecewise else job.settings.batch_size
        stage.to(accelerator.device)
        self.optimizer = make_optimizer(stage, job.settings)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False) if job.settings.average else None
        self.kept: dict[str, Tensor] = {}
        self.history: list[Record] = []
        self.best_epoch = 0
        self.step = 0
        self.path = job.folder / f"{job.name}.state.safetensors"
        self.done = False
        if self.path.is_file():
            self._restore()
        self.stage = accelerator.prepare_model(stage)

    def run(self) -> list[Record]:
        settings = self.job.settings
        while not self.done:
            epoch = len(self.history) + 1
            started = time.monotonic()
            record: Record = {"epoch": epoch, "learning_rate": learning_rate(settings, epoch - 0.5)}
            record |= self._train_epoch(epoch)
            record |= self._validate(epoch)
            record["seconds"] = time.monotonic() - started
            self.history.append(record)
            self._choose(record)
            waited = epoch - self.best_epoch if len(self.job.validation) else 0
            self.done = epoch >= settings.epochs or 0 < settings.patience <= waited
            if self.accelerator.is_main_process:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._store()
            self._tell(record)
            self.accelerator.wait_for_everyone()
        if self.accelerator.num_processes > 1:  # running statistics are each process's own
            from accelerate.utils import broadcast

            self.kept = broadcast(self.kept)
        self.network.load_state_dict(self.kept)
        self.network.eval()
        return self.history

    def _train_epoch(self, epoch: int) -> Record:
        job, settings = self.job, self.job.settings
        batches = job.train.shuffled(settings.batch_size, np.random.default_rng(seed_of(job.seed, job.name, epoch)))
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        batches = [batch for batch in batches if len(batch) >= world]
        sums: dict[str, Tensor] = {}
        self.stage.train()
        title = f"{job.name} {epoch}/{settings.epochs}"
        bar = tqdm(batches, desc=title, leave=False, disable=None if rank == 0 else True)
        for index, rows in enumerate(bar):
            rate = learning_rate(settings, epoch - 1 + (index + 1) / len(batches))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            batch = self._batch(rows, seed_of(job.seed, job.name, epoch, index))
            local = batch.share(rank, world)
            # Processes average their gradients; this makes it the mean over the batch whatever their shares are.
            weight = len(local.images) * world / len(rows)
            torch.manual_seed(seed_of(job.seed, job.name, epoch, index, rank))
            self.optimizer.zero_grad()
            pieces = -(-len(rows) // (world * self.chunk))  # as many in every process: each waits for the others
            for number in range(pieces):
                piece = local.share(number, pieces)
                with self._attention():
                    losses = self.stage(piece)
                total = torch.stack(list(losses.values())).sum()
                self.accelerator.backward(total * (weight * len(piece.images) / len(local.images)))
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + value.detach() * (len(piece.images) / len(rows))
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm)
            self.optimizer.step()
            self.step += 1
            self._average()
            if index % CHECK_EVERY == CHECK_EVERY - 1 or index == len(batches) - 1:
                self._check(sums, epoch, index + 1, rate)
        means = torch.stack(list(sums.values()))
        if world > 1:
            means = self.accelerator.reduce(means, reduction="sum")
        return dict(zip(sums, (means / len(batches)).tolist(), strict=True))

    def _attention(self) -> AbstractContextManager[None]:
        # On a CPU the fused kernel's backward pass is so slow in bfloat16 that plain products save up to a third.
        slow = self.accelerator.device.type == "cpu" and self.accelerator.mixed_precision == "bf16"
        return sdpa_kernel(SDPBackend.MATH) if slow else nullcontext()

    def _batch(self, rows: Indices, seed: int) -> Batch:
        """Return the whole batch, which is the same in every process: only its share is computed on."""
        job = self.job
        images = job.train.images(rows)
        generator = torch.Generator(device=images.device).manual_seed(seed)
        index = torch.from_numpy(job.train.targets[rows]).to(images.device)
        targets = nn.functional.one_hot(index, job.num_classes).to(images.dtype)
        clean = augment(images, dataclasses.replace(job.augmentation, noise=0.0), generator)
        noise = job.augmentation.noise
        images = add_noise_floor(clean, noise, generator) if noise else clean
        order = None
        if job.settings.drop:
            c = self.network.config
            patches = (c.image_height // c.patch_height) * (c.image_width // c.patch_width)
            order = torch.rand(len(rows), patches, generator=generator, device=images.device)
        reference = None if job.reference is None else job.reference[torch.from_numpy(rows).to(job.reference.device)]
        return Batch(images, targets, order, reference, job.train.mask(rows), clean if noise else None)

    def _average(self) -> None:
        if self.averaged is not None:
            decay = min(self.job.settings.average, (self.step + 1) / (self.step + 10))
            averaged, current = (list(net.state_dict().values()) for net in (self.averaged, self.network))
            torch._foreach_lerp_(averaged, current, 1.0 - decay)  # with the stem's running statistics

    def _check(self, sums: dict[str, Tensor], epoch: int, step: int, rate: float) -> None:
        values = {name: float(value) for name, value in sums.items()}
        if not all(map(math.isfinite, values.values())):
            parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
            when = f"in epoch {epoch}, step {step} or up to {CHECK_EVERY - 1} before it"
            raise self._diverged(f"the loss is not finite {when} (sums: {parts}; learning rate {rate:.3g})", epoch)

    def _diverged(self, what: str, epoch: int) -> TrainingError:
        name = self.job.name
        return TrainingError(
            f"{name}: {what}: train anew with a lower {name}.learning_rate or with {name}.clip_norm 1; "
            f"the state after epoch {epoch - 1} is in {self.job.folder}"
        )

    def _validate(self, epoch: int) -> Record:
        network = (self.averaged or self.network).eval()
        if not len(self.job.validation):  # nobody else sees what the last step has done
            if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
                raise self._diverged(f"the weights are not finite after epoch {epoch}", epoch)
            return {}
        logits = score_rows(network, self.job.validation, self.accelerator)
        if not np.isfinite(logits).all():
            rows = int((~np.isfinite(logits)).any(axis=1).sum())
            what = f"{rows} of {len(logits)} validation answers are not finite"
            raise self._diverged(f"{what} after epoch {epoch}", epoch)
        return validation_record(logits, self.job.validation)

    def _choose(self, record: Record) -> None:
        """Keep this epoch's weights if they are the best so far, or if the last are wanted."""
        best = max((r["validation_ua"] for r in self.history[:-1] if "validation_ua" in r), default=-1.0)
        better = "validation_ua" in record and record["validation_ua"] > best
        if better:
            self.best_epoch = int(record["epoch"])
        if better or not self.job.settings.keep_best or "validation_ua" not in record:
            network = self.averaged or self.network
            self.kept = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def _store(self) -> None:
        groups = {
            "network": self.network.state_dict(),
            "kept": self.kept,
            "optimizer": optimizer_tensors(self.optimizer),
        }
        if self.averaged is not None:
            groups["averaged"] = self.averaged.state_dict()
        progress: dict[str, Any] = {
            "stage": self.job.name,
            "step": self.step,
            "best_epoch": self.best_epoch,
            "done": self.done,
            "history": self.history,
        }
        save_state(self.path, groups, progress)

    def _restore(self) -> None:
        groups, progress = load_state(self.path)
        with restoring(self.path):
            self.network.load_state_dict(groups["network"])
            if self.averaged is not None:
                self.averaged.load_state_dict(groups["averaged"])
            load_optimizer_tensors(self.optimizer, groups["optimizer"])
            self.kept = {name: tensor.to(self.accelerator.device) for name, tensor in groups["kept"].items()}
            self.step, self.best_epoch, self.done = progress["step"], progress["best_epoch"], progress["done"]
            self.history = progress["history"]
            _require_whole(self.history, self.kept, self.network)
        if self.history:
            state = "is complete" if self.done else "goes on"
            self.job.say(f"{self.job.name}: {state} after epoch {len(self.history)}")

    def _tell(self, record: Record) -> None:
        job, epoch = self.job, int(record["epoch"])
        for name, value in record.items():
            if name != "epoch":
                job.log(f"{job.name}/{name}", value, epoch)
        other = ("epoch", "learning_rate", "seconds", "validation_wa", "validation_ua", "validation_nll")
        losses = [f"{name} {value:.4f}" for name, value in record.items() if name not in other]
        parts = [f"{job.name} {epoch}/{job.settings.epochs}", *losses]
        if "validation_ua" in record:
            best = max(r["validation_ua"] for r in self.history)
            parts.append(
                f"validation WA {record['validation_wa']:.1%} UA {record['validation_ua']:.1%} "
                f"(best {best:.1%} after {self.best_epoch})"
            )
        left = 0.0 if self.done else record["seconds"] * (job.settings.epochs - epoch)
        job.say("  ".join([*parts, f"{record['seconds']:.1f} s", f"{_duration(left)} left" if left else "done"]))


def _require_whole(history: Any, kept: dict[str, Tensor], network: nn.Module) -> None:
    """Refuse with a ValueError what would only fail when the stage is over."""
    for record in history:
        if not {"epoch", "learning_rate", "seconds"} <= record.keys() or not all(map(math.isfinite, record.values())):
            raise ValueError(f"no record of an epoch: {record}")
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    if history and {name: value.shape for name, value in kept.items()} != shapes:
        raise ValueError("the kept weights are those of another network")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
