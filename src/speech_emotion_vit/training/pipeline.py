"""One training run: split, stages, results, in one folder."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, TrainingError
from .data.corpora import Utterance
from .data.protocols import Split, check_contents, make_split, without_validation
from .data.rows import Rows
from .fit.stage_runner import ORDER, Run, StageRunner
from .folder import SPLIT_FILE, hardware, locked, open_run, read_results, versions, write_csv
from .score.provenance import learnt_from, require_unheard, versions_of
from .score.report import write_results

if TYPE_CHECKING:
    from accelerate import Accelerator


def run_training(run: Run, accelerator: Accelerator) -> dict[str, Any]:
    """Run the stages, score the kept weights on validation and test items, and write everything to the folder.

    Returns:
        What ``results.json`` holds; nothing in processes other than the main one.

    Raises:
        ConfigError: student and teacher have features of different width, which cannot be matched.
        DatasetError: the split leaks, or a model that the run starts from has heard its test clips.
        TrainingError: the folder holds another run or is in use, or training cannot go on.
    """
    widths = {role: getattr(run.recipe, f"{role}_model")(2).embedding_dim for role in ("teacher", "student")}
    if "match" in ORDER[run.stages] and widths["teacher"] != widths["student"]:
        raise ConfigError(
            f"the teacher's feature has {widths['teacher']} values, the student's {widths['student']}: to match them "
            "set teacher_network and student_network alike"
        )
    split = make_split(
        run.data.utterances,
        protocol=run.protocol,
        versions=run.recipe.versions,
        fold=run.fold,
        seed=run.seed,
    )
    # A probe leaves out training speakers in turn. Where its network has heard these, as beside its own head and in a
    # mixture with the corpus it was trained on, others are needed to calibrate it.
    heard = bool(run.recipe.probe.keep) or len(split.labels) > 1
    if not run.recipe.validation or (run.stages == "probe" and not heard):
        split = without_validation(split)
    check_contents(split, run.data.features.contents)
    models = learnt_from(run.mode, run.recipe.initial_weights, run.recipe.teachers)
    for remark in (remarks := require_unheard(models, split, run.data.utterances, run.data.features.contents)):
        run.say(remark)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        return _run(run, split, accelerator)
    about_split = {
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "left_out": list(split.left_out),
        "leakage": split.leakage,
        "note": split.note,
    }
    description = describe(run, accelerator) | {"split": about_split, "remarks": [*run.data.remarks, *remarks]}
    with locked(run.folder):
        open_run(run.folder, description, resume=run.resume)
        _require_no_later_stage(run)
        _write_split(run, split)
        accelerator.wait_for_everyone()
        return _run(run, split, accelerator)


def describe(run: Run, accelerator: Accelerator) -> dict[str, Any]:
    """Return what a run's record says of it but for its split."""
    return {
        "corpus": run.data.corpus.name,
        "protocol": run.protocol,
        "fold": run.fold,
        "seed": run.seed,
        "mode": run.mode,
        "recipe": run.recipe.to_dict(),
        "learnt_from": versions_of(learnt_from(run.mode, run.recipe.initial_weights, run.recipe.teachers)),
        "data": run.data.digest,
        "features": run.data.features.key,
        "labels": list(run.data.labels),
        "versions": versions(),
        "hardware": hardware(str(accelerator.device)) | {"processes": accelerator.num_processes},
        "precision": accelerator.mixed_precision,
    }


def _require_no_later_stage(run: Run) -> None:
    """Refuse to put the results of an earlier stage in the place of a later one's."""
    later = [stage for stage in read_results(run.folder).get("epochs", ()) if stage not in ORDER[run.stages]]
    if later:
        raise TrainingError(
            f"{run.folder}: its network has been through stage {later[-1]}, which --stage {run.stages} would undo: "
            "pass --stage all or another --output"
        )


def _write_split(run: Run, split: Split) -> None:
    contents = run.data.features.contents
    rows = [
        (
            part,
            utterance.recording,
            utterance.version,
            utterance.label,
            utterance.speaker,
            contents.get(utterance.recording, ""),
        )
        for part, utterances in (("train", split.train), ("validation", split.validation), ("test", split.test))
        for utterance in utterances
    ]
    write_csv(run.folder / SPLIT_FILE, ("part", "utterance", "version", "label", "speaker", "content"), rows)


def _run(run: Run, split: Split, accelerator: Accelerator) -> dict[str, Any]:
    started = time.monotonic()
    rows = {
        part: Rows(utterances, run.data.features, run.data.labels, device=accelerator.device, possible=split.labels)
        for part, utterances in (
            ("train", _repeated(split.train, run.recipe.repeats)),
            ("validation", split.validation),
            ("test", split.test),
        )
    }
    run.say(
        f"{run.data.corpus.title}, protocol {run.protocol}{'' if run.fold is None else f', fold {run.fold}'}, "
        f"recipe {run.recipe.name}, seed {run.seed}: {len(split.train)} training, "
        f"{len(rows['validation'].utterances)} validation, {len(rows['test'].utterances)} test clips ({split.note})"
    )
    stages = StageRunner(run, rows, accelerator)
    networks, history = stages.run()
    results: dict[str, Any] = {}
    if accelerator.is_main_process:
        results = write_results(
            run.folder,
            run.data,
            frontend=run.recipe.frontend,
            networks=networks,
            history=history,
            rows=rows,
            possible=split.labels,
            temperature=stages.temperature,
            temperature_factor=run.recipe.temperature_factor,
            seconds=time.monotonic() - started,
        )
    accelerator.wait_for_everyone()
    return results


def _repeated(utterances: tuple[Utterance, ...], repeats: int) -> tuple[Utterance, ...]:
    """Return the training clips of an epoch: those of all corpora but the largest several times."""
    sizes = Counter(utterance.corpus for utterance in utterances)
    largest = max(sizes, key=sizes.__getitem__, default="")
    return utterances + tuple(u for u in utterances if u.corpus != largest) * (repeats - 1)
