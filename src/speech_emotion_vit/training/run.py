"""A training run: one split, or all folds of a cross-validation, through the stages of a recipe into a folder."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, TrainingError
from ..extras import TRAINING, require
from ..weights.resolve import resolve_model
from .data.corpora import CORPORA, LABELLED, Utterance, find_corpus
from .data.features import load_data, read_audio
from .data.protocols import (
    Fold,
    Protocol,
    Split,
    check_contents,
    make_split,
    number_of_folds,
    split_corpora,
    without_validation,
)
from .data.rows import make_rows
from .fit.stages import Run, Stages
from .fit.teacher import ORIGIN, REPOSITORY
from .folder import SPLIT_FILE, hardware, locked, open_run, read_results, versions, write_csv
from .recipes import AudioStage, Precision, Recipe
from .score.provenance import require_unknown
from .score.report import pool_folds, pooled_temperature, write_results

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)


def make_accelerator(device: str, precision: Precision) -> Accelerator:
    """Return the accelerator for this process: device, precision and, under ``accelerate launch``, its companions.

    Raises:
        ConfigError: a package is missing that training needs.
    """
    for module in TRAINING:  # now, not after an hour
        require(module, "train")
    from accelerate import Accelerator

    return Accelerator(cpu=device == "cpu", mixed_precision=precision)


def train_corpus(
    recipe: Recipe,
    *,
    dataset: str | None,
    data_dir: Path | None,
    protocol: Protocol,
    fold: Fold | Literal["all"],
    seed: int,
    output: Path,
    accelerator: Accelerator,
    teacher: Path | None = None,
    resume: bool = False,
    strict: bool = False,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Train by a recipe and return the results, as ``results.json`` in `output` holds them.

    If the protocol has folds, ``all`` trains each in a folder of its own and pools their test clips. ``final`` trains
    on everything except official test speakers, for all epochs of the recipe, in a folder inside `output`. It takes
    the temperature from the run or the folds in `output`, which held clips out.

    Args:
        recipe: front-end, network and stages.
        dataset: name of a corpus, or of several joined by ``+``; None: those of the recipe.
        data_dir: where they are; None: where corpora are kept.
        protocol: how they are split.
        fold: which fold.
        seed: of everything random.
        output: folder of the run.
        accelerator: device, precision and processes.
        teacher: folder of the speech encoder; None: on the Hub.
        resume: go on with the run in `output`.
        strict: refuse a corpus with anything missing, extra or unreadable.
        cache: folder of the features.

    Raises:
        ConfigError: neither recipe nor `dataset` names a corpus.
        DatasetError: a corpus is not there or cannot be split so.
        TrainingError: the output folder is in use or holds another run, or training cannot go on.
    """
    main = accelerator.is_main_process
    corpus, folder = find_corpus(_corpora(recipe, dataset, data_dir, protocol), data_dir)
    with accelerator.main_process_first():
        data = load_data(
            corpus,
            folder,
            frontend=recipe.frontend,
            versions=recipe.versions,
            network=recipe.network,
            only=recipe.labels,
            cache=cache,
            strict=strict,
        )
    run = Run(
        data=data,
        data_dir=folder,
        recipe=recipe,
        protocol=protocol,
        fold=None,
        seed=seed,
        folder=output,
        shared=output,
        teacher=teacher,
        cache=cache,
        resume=resume,
    )
    folds = 0 if _test_corpora(run) else number_of_folds(data.utterances, protocol)
    if fold == "final":
        temperature = pooled_temperature(output)
        return _run_split(replace(run, fold="final", folder=output / "final", temperature=temperature), accelerator)
    if isinstance(fold, int):
        return _run_split(replace(run, fold=fold, folder=output / f"fold-{fold}"), accelerator)
    if not folds:
        return _run_split(run, accelerator)
    if main:
        with locked(output):
            open_run(output, _describe(run, accelerator) | {"fold": "all"}, resume=resume)
    for index in range(folds):
        place = output / f"fold-{index}"
        going_on = resume and (place / "run.json").is_file()
        _run_split(replace(run, fold=index, folder=place, resume=going_on), accelerator)
    return pool_folds(output, data, folds) if main else {}


def _corpora(recipe: Recipe, dataset: str | None, data_dir: Path | None, protocol: Protocol) -> str:
    """Return the names of the corpora to read, joined by ``+``: under ``corpus`` also those that only test."""
    if dataset is not None:
        return dataset
    if not recipe.corpora:
        raise ConfigError(f"recipe {recipe.name} names no corpus: pass --dataset")
    names = list(recipe.corpora)
    if protocol == "corpus":
        place = data_dir or find_corpus("+".join(names), None)[1]
        names += [name for name in LABELLED if name not in names and (place / name).is_dir()]
    return "+".join(names)


def _test_corpora(run: Run) -> list[str]:
    """Return the corpora that only test, because the recipe learns from others."""
    present = {utterance.corpus for utterance in run.data.utterances}
    learnt = set(run.recipe.corpora) or present
    return sorted(present - learnt) if run.protocol == "corpus" and present > learnt else []


def _split(run: Run) -> Split:
    utterances, recipe = run.data.utterances, run.recipe
    if test := _test_corpora(run):
        split = replace(split_corpora(utterances, train=recipe.corpora, test=test), fold=run.fold)
    else:
        split = make_split(utterances, protocol=run.protocol, versions=recipe.versions, fold=run.fold, seed=run.seed)
    all_train = run.fold == "final" or (recipe.head_alone and not any(clip.part for clip in split.validation))
    return without_validation(split) if split.validation and all_train else split


def _run_split(run: Run, accelerator: Accelerator) -> dict[str, Any]:
    """Run the stages, score the kept weights, and write everything to the folder.

    Returns:
        What ``results.json`` holds; nothing in processes other than the main one.

    Raises:
        DatasetError: the split leaks, or the model that the run starts from was trained on its test clips.
        TrainingError: the folder holds another run or is in use, or training cannot go on.
    """
    split = _split(run)
    contents = run.data.features.contents
    check_contents(split, contents)
    start = run.recipe.start
    remarks = require_unknown(start, split, run.data.utterances, contents) if start else []
    for remark in remarks:
        logger.info("%s", remark)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        return _train(run, split, accelerator)
    description = _describe(run, accelerator) | {
        "labels": sorted({utterance.label for utterance in split.train}),
        "split": {
            **{part: len(clips) for part, clips in split.parts.items()},
            "left_out": list(split.left_out),
            "leakage": split.leakage,
            "note": split.note,
        },
        "remarks": [*run.data.remarks, *remarks],
    }
    with locked(run.folder):
        _require_no_later_stage(run)
        open_run(run.folder, description, resume=run.resume)
        _write_split(run, split)
        accelerator.wait_for_everyone()
        return _train(run, split, accelerator)


def _describe(run: Run, accelerator: Accelerator) -> dict[str, Any]:
    """Return the record of a run, except for its split."""
    recipe = run.recipe.to_dict()
    stages = recipe.pop("stages")
    return {
        "corpus": run.data.corpus.name,
        "protocol": run.protocol,
        "fold": run.fold,
        "seed": run.seed,
        "recipe": recipe,
        "stages": {stage["stage"]: stage for stage in stages},
        **_origin(run.recipe),
        "teacher": ORIGIN if run.recipe.hears_encoder else None,
        "data": run.data.digest,
        "features": run.data.features.key,
        "labels": list(run.data.labels),
        "versions": versions(),
        "hardware": hardware(str(accelerator.device)) | {"processes": accelerator.num_processes},
        "precision": accelerator.mixed_precision,
    }


def _origin(recipe: Recipe) -> dict[str, Any]:
    """Return which model it started from, and which model of the Hub it stands on.

    The revision is part of it, because a name may mean another file tomorrow.
    """
    if not recipe.start:
        return {"learnt_from": [], "base_model": REPOSITORY if recipe.hears_encoder else None}
    model = resolve_model(recipe.start)
    below = model.repo_id or (model.entry and (model.entry.repo_id or model.entry.teacher))
    return {"learnt_from": [f"{model.name}@{model.revision}"], "base_model": below}


def _require_no_later_stage(run: Run) -> None:
    """Refuse to overwrite the results of a later stage by those of an earlier one."""
    asked = [stage.name for stage in run.recipe.stages]
    later = [stage for stage in read_results(run.folder).get("epochs", ()) if stage not in asked]
    if later:
        raise TrainingError(
            f"{run.folder}: its network has been through stage {later[-1]}, which --stages {','.join(asked)} would "
            "undo: name it, too, or pass another --output"
        )


def _write_split(run: Run, split: Split) -> None:
    contents = run.data.features.contents
    rows = [
        (part, clip.recording, clip.version, clip.label, clip.speaker, contents.get(clip.recording, ""))
        for part, clips in split.parts.items()
        for clip in clips
    ]
    if stage := run.recipe.stage(AudioStage):
        rows += [
            ("unlabelled", clip.id, clip.version, "", clip.speaker, "")
            for clip in read_audio(stage.audio, run.data_dir)
        ]
    write_csv(run.folder / SPLIT_FILE, ("part", "utterance", "version", "label", "speaker", "content"), rows)


def _train(run: Run, split: Split, accelerator: Accelerator) -> dict[str, Any]:
    started = time.monotonic()
    labels = tuple(sorted({utterance.label for utterance in split.train}))
    parts = dict(split.parts)
    if run.protocol == "corpus" and not isinstance(run.fold, int):
        parts["speaker"] = _official(run, split)
    features, frontend, device = run.data.features, run.recipe.frontend, accelerator.device
    rows = {
        part: make_rows(clips, features, labels, frontend, device=device, possible=split.labels)
        for part, clips in parts.items()
    }
    logger.info(
        "%s, protocol %s%s, recipe %s, seed %d: %d training, %d validation, %d test clips (%s)",
        run.data.corpus.title,
        run.protocol,
        "" if run.fold is None else f", fold {run.fold}",
        run.recipe.name,
        run.seed,
        *(len(rows[part].utterances) for part in split.parts),
        split.note,
    )
    stages = Stages(run, rows, len(labels), accelerator)
    history = stages.run()
    results: dict[str, Any] = {}
    if accelerator.is_main_process:
        results = write_results(
            run.folder,
            run.data.corpus,
            labels,
            frontend=frontend,
            networks=stages.networks,
            history=history,
            rows={part: each for part, each in rows.items() if part != "train"},
            possible=split.labels,
            temperature=run.temperature,
            seconds=time.monotonic() - started,
        )
    accelerator.wait_for_everyone()
    return results


def _official(run: Run, split: Split) -> tuple[Utterance, ...]:
    """Return the clips of the official test speakers of the corpora that train, which ``corpus`` leaves out."""
    learnt = {utterance.corpus for utterance in split.train}
    return tuple(
        utterance
        for utterance in run.data.utterances
        if utterance.corpus in learnt
        and utterance.speaker in CORPORA[utterance.corpus].test_speakers
        and utterance.id not in CORPORA[utterance.corpus].defects
    )
