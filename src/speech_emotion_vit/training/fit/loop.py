"""The one loop that runs every stage with gradients: optimiser, schedule, checkpoints, resuming.

A stage's state between two steps is one safetensors file that appears whole or not at all. All randomness of an epoch
is seeded by (seed, stage, epoch), so no generator's state needs to be stored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from ...errors import TrainingError, one_line
from ...files import whole_file
from ..data.rows import Indices
from ..recipes import GradientStage
from ..score.evaluate import Record

if TYPE_CHECKING:
    from accelerate import Accelerator

HALVE_EVERY = 10  # epochs (*paper*)
WARMUP_STEPS = 200  # of linear rise where the schedule is a cosine: LayerNorm's first steps are wild
LOWEST_SHARE = 0.03  # of the highest rate, where the cosine begins and ends
BETAS = {"halving": (0.9, 0.999), "cosine": (0.9, 0.98)}  # the latter forgets the first steps of a transformer sooner
WEIGHT_DECAY = {"halving": 0.0, "cosine": 0.01}  # of matrices; with none AdamW is the paper's Adam
CLIP_NORM = {"halving": math.inf, "cosine": 1.0}  # largest gradient norm
CHECK_EVERY = 20  # steps between two looks at the loss: a look waits for the device
FORMAT = 1  # of a state
SAVE_EVERY = 300  # steps between two states of an epoch: minutes of work

Tensors = dict[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """How a stage is run."""

    settings: GradientStage
    """How it is optimised; its name is part of every seed."""
    seed: int
    """Of everything random."""
    folder: Path
    """Where its state is kept."""
    validate: Callable[[], Record] | None = None
    """Scores the network; the epoch with the best ``validation_ua`` is kept. None: the last epoch is kept."""
    log: Callable[[str, float, int], None] = field(default=lambda name, value, epoch: None)
    """Called with name, value and epoch of each number."""


def seed_of(seed: int, *parts: int | str) -> int:
    """Return a 63-bit seed that depends on all of its arguments."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def learning_rate(settings: GradientStage, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    Args:
        settings: of the stage.
        epoch: of the step, from 1.
        step: in this epoch, from 1.
        steps: in every epoch.
    """
    if settings.schedule == "halving":
        return settings.learning_rate * 0.5 ** ((epoch - 1) // HALVE_EVERY)
    done = (epoch - 1) * steps + step - 1
    share = 0.5 * (1.0 + math.cos(math.pi * done / (settings.epochs * steps)))
    warmup = min(1.0, (done + 1) / WARMUP_STEPS)
    return settings.learning_rate * warmup * (LOWEST_SHARE + (1.0 - LOWEST_SHARE) * share)


def make_optimizer(stage: nn.Module, settings: GradientStage) -> torch.optim.Optimizer:
    """Return the optimiser of all parameters that require a gradient; only matrices decay."""
    parameters = [p for p in stage.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY[settings.schedule]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=BETAS[settings.schedule], fused=True)


def fit(stage: nn.Module, job: Job, accelerator: Accelerator) -> list[Record]:
    """Run a stage, or the rest of it, and leave the kept weights in ``stage.network``.

    Args:
        stage: a module that maps a batch to its losses: means over the rows, whose sum is minimised. Its ``network`` is
            trained, ``batches(size, rng)`` returns the rows of each batch of an epoch, and ``batch(rows, seed)`` makes
            a batch of them. The gradient of ``piece`` rows is computed at once; those of the pieces add up.
        job: how it is run; its folder holds the state that a stopped stage goes on from.
        accelerator: device, precision and processes.

    Returns:
        One record of numbers per epoch.

    Raises:
        TrainingError: the loss is not finite, there are fewer rows than processes, or the state cannot be read.
    """
    return _Fit(stage, job, accelerator).run()


class _Fit:
    """The state of one call of `fit`."""

    def __init__(self, stage: Any, job: Job, accelerator: Accelerator) -> None:
        self.job, self.settings, self.accelerator = job, job.settings, accelerator
        self.own: Any = stage.to(accelerator.device)
        self.optimizer = make_optimizer(stage, job.settings)
        self.kept: dict[str, Tensor] = {}
        self.history: list[Record] = []
        self.best_epoch = 0
        self.step = 0  # steps done of the current epoch
        self.sums: dict[str, Tensor] = {}  # of this process's losses in these steps
        self.seconds = 0.0  # that these steps took
        self.done = False
        self.path = job.folder / f"{job.settings.name}.state.safetensors"
        if self.path.is_file():
            self._restore()
        self.stage = accelerator.prepare_model(stage)

    def run(self) -> list[Record]:
        while not self.done:
            epoch = len(self.history) + 1
            means = self._train_epoch(epoch)
            rate = self.optimizer.param_groups[0]["lr"]
            record: Record = {"epoch": epoch, "learning_rate": rate, **means, **self._validate(epoch)}
            record["seconds"] = self.seconds
            self.history.append(record)
            self._choose(record)
            self.step, self.sums, self.seconds = 0, {}, 0.0
            self.done = epoch >= self.settings.epochs
            self._store()
            self._log(record)
        if self.accelerator.num_processes > 1:  # whose weights differ in the last bits
            from accelerate.utils import broadcast

            self.kept = broadcast(self.kept)
        self.own.network.load_state_dict(self.kept)
        self.own.network.eval()
        return self.history

    def _train_epoch(self, epoch: int) -> Record:
        name, settings, world = self.settings.name, self.settings, self.accelerator.num_processes
        seed = seed_of(self.job.seed, name, epoch)
        batches = self.own.batches(settings.batch_size, np.random.default_rng(seed))
        batches = [batch for batch in batches if len(batch) >= world]
        if not batches:
            raise TrainingError(
                f"{name}: its training clips are fewer than the {world} processes: take fewer processes"
            )
        self.stage.train()
        rank = self.accelerator.process_index
        began = time.monotonic() - self.seconds
        bar = tqdm(
            total=len(batches), initial=self.step, desc=f"{name} {epoch}/{settings.epochs}", leave=False,
            disable=None if rank == 0 else True,
        )  # fmt: skip
        with bar:
            while self.step < len(batches):
                rate = learning_rate(settings, epoch, self.step + 1, len(batches))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self._step(batches[self.step], seed)
                self.step += 1
                self.seconds = time.monotonic() - began
                bar.update()
                if self.step % CHECK_EVERY == 0 or self.step == len(batches):
                    self._check(epoch, rate)
                if self.step % SAVE_EVERY == 0 and self.step < len(batches):
                    self._store()
        return {loss: value / len(batches) for loss, value in self._totals().items()}

    def _step(self, rows: Indices, seed: int) -> None:
        """Take one step of the optimiser on this process's share of a batch, in pieces."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        self.optimizer.zero_grad()
        pieces = -(-len(rows) // (world * self.own.piece))  # the same number in each process
        for piece in (rows[rank::world][number::pieces] for number in range(pieces)):
            with self._attention():
                losses = self.stage(self.own.batch(piece, seed))
            total = torch.stack(list(losses.values())).sum()
            # Processes average their gradients; this makes it the mean over the batch whatever their shares are.
            self.accelerator.backward(total * (len(piece) * world / len(rows)))
            for name, value in losses.items():
                self.sums[name] = self.sums.get(name, 0.0) + value.detach() * (len(piece) / len(rows))
        nn.utils.clip_grad_norm_(self.own.parameters(), CLIP_NORM[self.settings.schedule])
        self.optimizer.step()

    def _attention(self) -> contextlib.AbstractContextManager[None]:
        # On a CPU the fused kernel's backward pass is so slow in bfloat16 that plain products save up to a third.
        slow = self.accelerator.device.type == "cpu" and self.accelerator.mixed_precision == "bf16"
        return sdpa_kernel(SDPBackend.MATH) if slow else contextlib.nullcontext()

    def _totals(self) -> Record:
        """Return the sums of all processes."""
        values = torch.stack(list(self.sums.values()))
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="sum")
        return dict(zip(self.sums, values.tolist(), strict=True))

    def _check(self, epoch: int, rate: float) -> None:
        values = {name: float(value) for name, value in self.sums.items()}
        if not all(map(math.isfinite, values.values())):
            parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
            when = f"in epoch {epoch}, step {self.step} or up to {CHECK_EVERY - 1} before it"
            raise self._diverged(f"the loss is not finite {when} (sums: {parts}; learning rate {rate:.3g})")

    def _diverged(self, what: str) -> TrainingError:
        name = self.settings.name
        return TrainingError(
            f"{name}: {what}: train anew with a lower {name}.learning_rate; what was reached before is in "
            f"{self.job.folder}"
        )

    def _validate(self, epoch: int) -> Record:
        network = self.own.network.eval()
        if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
            raise self._diverged(f"the weights are not finite after epoch {epoch}")
        record = self.job.validate() if self.job.validate else {}
        if not all(map(math.isfinite, record.values())):
            raise self._diverged(f"the validation answers are not finite after epoch {epoch}")
        return record

    def _choose(self, record: Record) -> None:
        """Keep this epoch's weights if they are the best so far, or if there is nothing to choose by."""
        best = max((r["validation_ua"] for r in self.history[:-1] if "validation_ua" in r), default=-1.0)
        if record.get("validation_ua", math.inf) > best:
            self.best_epoch = int(record["epoch"])
            self.kept = {name: value.detach().clone() for name, value in self.own.network.state_dict().items()}

    def _store(self) -> None:
        totals = self._totals() if self.sums else {}
        if self.accelerator.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            groups = {
                "stage": self.own.state_dict(),
                "kept": self.kept,
                "optimizer": optimizer_tensors(self.optimizer),
            }
            progress = {
                "step": self.step,
                "sums": totals,
                "seconds": self.seconds,
                "best_epoch": self.best_epoch,
                "done": self.done,
                "history": self.history,
            }
            save_state(self.path, groups, progress)
        self.accelerator.wait_for_everyone()

    def _restore(self) -> None:
        groups, progress = load_state(self.path)
        device, world = self.accelerator.device, self.accelerator.num_processes
        with restoring(self.path):
            self.own.load_state_dict(groups["stage"])
            load_optimizer_tensors(self.optimizer, groups["optimizer"])
            self.kept = {name: tensor.to(device) for name, tensor in groups.get("kept", {}).items()}
            self.step, self.best_epoch, self.done = progress["step"], progress["best_epoch"], progress["done"]
            self.sums = {name: torch.tensor(value / world, device=device) for name, value in progress["sums"].items()}
            self.seconds, self.history = progress["seconds"], progress["history"]
            _require_whole(self.history, self.step, self.kept, self.own.network)
        state = "is complete" if self.done else "goes on"
        steps = f" and {self.step} steps" if self.step else ""
        logger.info("%s: %s after epoch %d%s", self.settings.name, state, len(self.history), steps)

    def _log(self, record: Record) -> None:
        name, epoch = self.settings.name, int(record["epoch"])
        for key, value in record.items():
            if key != "epoch":
                self.job.log(f"{name}/{key}", value, epoch)
        other = ("epoch", "learning_rate", "seconds", "validation_wa", "validation_ua", "validation_nll")
        losses = [f"{key} {value:.4f}" for key, value in record.items() if key not in other]
        parts = [f"{name} {epoch}/{self.settings.epochs}", *losses]
        if "validation_ua" in record:
            best = max(r["validation_ua"] for r in self.history)
            parts.append(
                f"validation WA {record['validation_wa']:.1%} UA {record['validation_ua']:.1%} "
                f"(best {best:.1%} after {self.best_epoch})"
            )
        left = 0.0 if self.done else record["seconds"] * (self.settings.epochs - epoch)
        parts += [f"{record['seconds']:.1f} s", f"{_duration(left)} left" if left else "done"]
        logger.info("%s", "  ".join(parts))


def _require_whole(history: Any, step: Any, kept: dict[str, Tensor], network: nn.Module) -> None:
    """Raise a ValueError for a state that would only fail when the stage is over."""
    if not step >= 0:
        raise ValueError(f"no number of steps: {step}")
    for record in history:
        if not {"epoch", "learning_rate", "seconds"} <= record.keys() or not all(map(math.isfinite, record.values())):
            raise ValueError(f"no record of an epoch: {record}")
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    if history and {name: value.shape for name, value in kept.items()} != shapes:
        raise ValueError("the kept weights are those of another network")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def save_state(path: Path, groups: dict[str, Tensors], progress: dict[str, Any]) -> None:
    """Write groups of tensors and the JSON-ready `progress` to `path`, atomically.

    Raises:
        TrainingError: the disk is full; what was there before still is.
        ConfigError: nothing can be written there.
    """
    tensors = {
        f"{group}.{name}": tensor.detach().to("cpu", copy=True).contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    with whole_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": str(FORMAT), "progress": json.dumps(progress)})
        except SafetensorError as error:
            raise TrainingError(f"{path}: cannot be written ({error}): make room, and go on with --resume") from error


def load_state(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Return what `save_state` wrote.

    Raises:
        TrainingError: the file cannot be read, or was written by another version.
    """
    groups: dict[str, Tensors] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 - not a mapping
                group, _, name = key.partition(".")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: cannot be resumed from ({error}): remove it to repeat this stage") from error
    if metadata.get("format") != str(FORMAT):
        raise TrainingError(
            f"{path}: was written by another version (format {metadata.get('format')}): remove it to repeat this stage"
        )
    try:
        progress = json.loads(metadata["progress"])
    except (KeyError, ValueError, RecursionError):
        progress = None
    if not isinstance(progress, dict):
        raise TrainingError(f"{path}: does not say how far the stage was: remove it to repeat this stage")
    return groups, progress


@contextlib.contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Raise one `TrainingError` for whatever fails in the block, because the state at `path` does not fit."""
    try:
        yield
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}: does not fit this run ({one_line(error)[:200]}): remove it to repeat this stage"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimiser's state as flat tensors named ``<parameter>.<what>``."""
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(float(value))
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Load what `optimizer_tensors` returned; the settings of `optimizer` stay."""
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
