"""Bundle a network of a finished run: copy its weights, and write its record from what the run measured.

python tools/bundle_weights.py runs/base/final base                    the network the run was for
python tools/bundle_weights.py runs/crema-d crema-d-paper teacher      its teacher
python tools/bundle_weights.py runs/savee/final savee-paper            trained on all speakers, with the folds' score
python tools/bundle_weights.py runs/research/final research --on base  the head alone: all else is that model's

Nothing is typed by hand: the scores are those of the run's ``results.json``, measured on the very weights that are
stored, or, for a network trained on all speakers, on those of the folds beside it, none of which had heard its test
speaker.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from speech_emotion_vit.errors import WeightsError
from speech_emotion_vit.model.config import WEIGHTS_FILE
from speech_emotion_vit.training.data.corpora import CORPORA, combine
from speech_emotion_vit.training.fit.teacher import ORIGIN
from speech_emotion_vit.training.folder import RESULTS_FILE, RUN_FILE, read_json
from speech_emotion_vit.training.recipes import RECIPES, Recipe
from speech_emotion_vit.training.score.provenance import training_record
from speech_emotion_vit.weights.checkpoint import load_checkpoint, save_checkpoint, without_head
from speech_emotion_vit.weights.manifest import (
    MANIFEST_FILE,
    Manifest,
    Metric,
    WeightEntry,
    load_manifest,
    write_manifest,
)
from speech_emotion_vit.weights.resolve import WEIGHTS_FOLDER, sha256_file

ROOT = Path(__file__).resolve().parent.parent
METHOD = "Kim & Lee, IEEE Access 2024, doi 10.1109/ACCESS.2024.3447770"


def metrics(part: str, scores: dict[str, Any], protocol: str) -> list[Metric]:
    """Return the scores of a network on one part of the split."""
    split, _, about = part.partition(" ")
    title = CORPORA[about.split(",")[0]].title if about.split(",")[0] in CORPORA else about
    note = f"{title}{about[len(about.split(',')[0]) :]}" if about else None
    if split == "speaker":  # the official test speakers of a corpus that it learnt from
        protocol, split = "speaker", "test"
    if split == "validation" and protocol == "corpus":  # speakers of a corpus that it learnt from, too
        protocol = "speaker"
    common: dict[str, Any] = {"protocol": protocol, "split": split, "note": note, "seeds": 1}
    common |= {"clips": scores["clips"], "speakers": max(1, scores["speakers"])}

    def interval(name: str) -> tuple[float, float] | None:
        found = scores[f"{name}_interval"]
        return None if found is None else (found[0], found[1])

    return [
        Metric(name="UA", value=scores["ua"], interval=interval("ua"), **common),
        Metric(name="WA", value=scores["wa"], interval=interval("wa"), **common),
        Metric(name="macro-F1", value=scores["macro_f1"], **common),
        Metric(name="ECE", value=scores["ece"], **common),
    ]


def all_metrics(folder: Path, run: dict[str, Any], scores: dict[str, Any]) -> tuple[Metric, ...]:
    """Return all metrics of a network: of the file itself where it was scored, else of the folds beside it."""
    found = [metric for part in scores for metric in metrics(part, scores[part], run["protocol"])]
    if run["fold"] != "final":
        return tuple(found)
    pooled = read_json(folder.parent / RESULTS_FILE)
    note = "networks of the folds" if "folds" in pooled else "a network that never heard them"
    for part, values in pooled["scores"][pooled["model"]].items():
        if part not in scores:
            for metric in metrics(part, values, run["protocol"]):
                said = f"{metric.note}, {note}" if metric.note else note
                how = metric.split if metric.split == "validation" else "cross-validation"
                found.append(dataclasses.replace(metric, split=how, note=said))
    return tuple(found)


def recipe_of(run: dict[str, Any]) -> str:
    """Return the recipe's name, and whether its values are those of that name."""
    stages = [{"stage": name, **values} for name, values in run["stages"].items()]
    recipe = Recipe.from_dict({**run["recipe"], "stages": stages})
    return recipe.name + (" with other values" if recipe != RECIPES[recipe.name] else "")


def speakers_heard(place: Path) -> dict[str, tuple[str, ...]]:
    """Return whom the model in a folder has heard, by corpus, which its run and those before it have on record."""
    heard = training_record(str(place))
    if heard.unknown:
        sys.exit(f"not on record is what {heard.unknown} were trained on: bundle on the machine that trained them")
    by_corpus: dict[str, list[str]] = {}
    for name in sorted(heard.speakers | set(heard.clips.values())):
        corpus, speaker = name.split("/", 1)
        by_corpus.setdefault(corpus, []).append(speaker)
    return {corpus: tuple(speakers) for corpus, speakers in by_corpus.items()}


def store(weights: Path, target: Path, backbone: WeightEntry | None) -> None:
    """Copy weights, or the head alone where all else must be that of a bundled model."""
    if backbone is None:
        shutil.copyfile(weights, target)
        return
    network, config = load_checkpoint(weights)
    below, _ = load_checkpoint(WEIGHTS_FOLDER / backbone.file)
    theirs = below.state_dict()
    body = without_head(network.state_dict())
    if differing := [key for key in body if key not in theirs or not torch.equal(body[key], theirs[key])]:
        sys.exit(f"{weights}: {len(differing)} tensors are not those of {backbone.name}, {differing[0]} say")
    save_checkpoint(target, network, config, backbone=backbone.name)


def main(folder: Path, name: str, role: str | None = None, backbone: str | None = None) -> None:
    """Copy the weights of the run in `folder` and enter them as `name`."""
    run, results = read_json(folder / RUN_FILE), read_json(folder / RESULTS_FILE)
    role = role or results["model"]
    place = folder if role == results["model"] else folder / role
    _, config = load_checkpoint(place / WEIGHTS_FILE)
    speakers = speakers_heard(place)  # before the file of a model that this one was trained from is replaced
    learnt = combine(list(speakers))
    teacher = run["teacher"]
    target = WEIGHTS_FOLDER / f"{name}.safetensors"
    try:
        manifest = load_manifest(ROOT / MANIFEST_FILE)
    except WeightsError:
        manifest = Manifest(default=name, models={})
    below = manifest.get(backbone) if backbone else None
    store(place / WEIGHTS_FILE, target, below)
    taught = ""
    if teacher:
        taught = f"; frames matched to those of {teacher['credit']}"
    licence = "MIT" if learnt.free else "for research only"
    start = manifest.models.get(run["learnt_from"][0].split("@")[0]) if run["learnt_from"] else None
    if start and start.teacher and not teacher:  # what it stands on is named with it
        teacher = ORIGIN
        taught = f"; a part of {start.name}, matched to it, whose frames are matched to those of {ORIGIN['credit']}"
    entry = WeightEntry(
        name=name,
        file=target.name,
        sha256=sha256_file(target),
        size_bytes=target.stat().st_size,
        config=config,
        trained_on=f"{learnt.title}, {run['split']['train']} clips ({run['split']['note']}){taught}",
        heard=speakers,
        recipe=f"{recipe_of(run)}, stages {', '.join(run['stages'])}, seed {run['seed']}",
        metrics=all_metrics(folder, run, results["scores"][role]),
        license=f"{licence}; trained on {learnt.license}" + (f"; teacher: {teacher['license']}" if teacher else ""),
        citation="; ".join([METHOD, *([teacher["citation"]] if teacher else []), learnt.citation]),
        teacher=teacher["repository"] if teacher else None,
        backbone=backbone,
        backbone_sha256=below.sha256 if below else None,
    )
    models = {**manifest.models, name: entry}
    for other in [other for other in models.values() if other.backbone == name]:
        if other.backbone_sha256 != entry.sha256:
            del models[other.name]
            print(f"{other.name} is no longer bundled: its head was fitted on another {name}, so fit it again")
    models = dict(sorted(models.items(), key=lambda item: (item[0] != manifest.default, item[0])))
    write_manifest(ROOT / MANIFEST_FILE, dataclasses.replace(manifest, models=models))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("name", help="of the model")
    parser.add_argument("role", nargs="?", help="teacher or student; by default what the run was for")
    parser.add_argument("--on", dest="backbone", help="bundled model whose tensors are this one's, all but the head")
    main(**vars(parser.parse_args()))
