"""Bundle a network of a finished run: copy its weights, and write its record from what the run measured.

python tools/bundle_weights.py runs/crema-d crema-d          the network the run was for
python tools/bundle_weights.py runs/crema-d crema-d teacher  its teacher
python tools/bundle_weights.py runs/crema-d/final crema-d    trained on validation speakers too: its own test score
python tools/bundle_weights.py runs/savee/final savee        trained on all speakers, with the score of the folds
python tools/bundle_weights.py runs/general/final general    several corpora: CREMA-D's score is the file's own

Of a probe on a bundled model only the head is stored: the rest is that model's file.

Nothing is typed by hand: the scores are those of the run's ``results.json``, measured on the very weights that are
stored, or, for a network trained on all speakers, on those of the folds beside it, none of which had heard its test
speaker.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from speech_emotion_vit.errors import WeightsError
from speech_emotion_vit.model.config import WEIGHTS_FILE
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.training.data.corpora import CORPORA, combine
from speech_emotion_vit.training.fit.pretrained import load_model, without_head
from speech_emotion_vit.training.folder import RESULTS_FILE, RUN_FILE, read_json
from speech_emotion_vit.training.recipes import RECIPES, Recipe
from speech_emotion_vit.training.score.provenance import heard_by
from speech_emotion_vit.weights.checkpoint import load_checkpoint, save_checkpoint
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
MEMBERS = ("crema-d", "emodb", "savee")
METHOD = "Kim & Lee, IEEE Access 2024, doi 10.1109/ACCESS.2024.3447770"
CITATIONS = {
    "crema-d": "Cao et al., CREMA-D, doi 10.1109/TAFFC.2014.2336244",
    "emodb": "Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005",
    "savee": "Haq & Jackson, Speaker-Dependent Audio-Visual Emotion Recognition, AVSP 2009",
}
LICENSES = {
    "crema-d": "MIT; trained on CREMA-D (Open Database License 1.0)",
    "emodb": f"MIT; trained on EmoDB ({CORPORA['emodb'].license})",
    "savee": "for research only, as is SAVEE, on which it was trained",
}


def metrics(scores: dict[str, Any], protocol: str, split: str, note: str | None = None) -> list[Metric]:
    """Return the scores of a network on one part of the split."""
    common: dict[str, Any] = {"protocol": protocol, "split": split, "note": note, "seeds": 1}
    common |= {"clips": scores["clips"], "speakers": scores["speakers"]}

    def interval(name: str) -> tuple[float, float]:
        low, high = scores[f"{name}_interval"]
        return (low, high)

    return [
        Metric(name="UA", value=scores["ua"], interval=interval("ua"), **common),
        Metric(name="WA", value=scores["wa"], interval=interval("wa"), **common),
        Metric(name="macro-F1", value=scores["macro_f1"], **common),
        Metric(name="ECE", value=scores["ece"], **common),
    ]


def scored_parts(folder: Path, run: dict[str, Any], scores: dict[str, Any], role: str) -> list[Metric]:
    """Return all metrics of a network: of the file itself where it was scored, else of the folds beside it."""
    protocol = run["protocol"]
    if run["fold"] != "final":
        return [m for part in ("test", "validation") if part in scores for m in metrics(scores[part], protocol, part)]
    pooled = read_json(folder.parent / RESULTS_FILE)["scores"][role]
    if "+" not in run["corpus"]:
        if "test" not in scores:
            return metrics(pooled["test"], protocol, "cross-validation")
        note = "a network that never heard them"
        if run["mode"] == "probe":  # of the same kind, on another network
            note = "the same kind of head, on a network that never heard them"
        return metrics(scores["test"], protocol, "test") + metrics(pooled["validation"], protocol, "validation", note)
    found = []
    for member in MEMBERS:
        title = CORPORA[member].title
        if f"test {member}" in scores:
            found += metrics(scores[f"test {member}"], protocol, "test", title)
        else:
            note = f"{title}, networks of the folds"
            found += metrics(pooled[f"test {member}"], protocol, "cross-validation", note)
    return found


def backbone(
    name: str, network: SpectrogramViT, probed: str | None, models: Mapping[str, WeightEntry]
) -> WeightEntry | None:
    """Return the bundled model under a probe, whose tensors need no second copy; None where there is none.

    A probe that takes its model's own place is the whole network.
    """
    under = None if probed is None or probed == name else models.get(probed)
    if under is None or under.backbone is not None:
        return None
    theirs, own = without_head(load_model(under.name)[0]), without_head(network)
    if theirs.keys() != own.keys() or not all(torch.equal(theirs[key], own[key]) for key in own):
        sys.exit(f"{under.name} is not the network that the probe was fitted on: fit the probe again")
    return under


def recipe_of(run: dict[str, Any]) -> str:
    """Return the recipe's name, and whether its values are those of that name."""
    recipe = Recipe.from_dict(run["recipe"]).to_dict()
    preset = RECIPES[recipe["name"]].to_dict()
    if run["mode"] == "probe" and recipe["initial_weights"] == load_manifest().default:  # what a probe takes anyway
        preset = {**preset, "initial_weights": recipe["initial_weights"]}
    return recipe["name"] + (" with other values" if recipe != preset else "")


def speakers_heard(place: Path) -> dict[str, tuple[str, ...]]:
    """Return whom the model in a folder has heard, by corpus, which its run and those before it have on record."""
    heard = heard_by(str(place))
    if heard.unknown:
        sys.exit(f"not on record is what {heard.unknown} were trained on: bundle on the machine that trained them")
    by_corpus: dict[str, list[str]] = {}
    for name in sorted(heard.speakers | set(heard.clips.values())):
        corpus, speaker = name.split("/", 1)
        by_corpus.setdefault(corpus, []).append(speaker)
    return {corpus: tuple(speakers) for corpus, speakers in by_corpus.items()}


def main(folder: Path, name: str, role: str | None = None) -> None:
    """Copy the weights of the run in `folder` and enter them as `name`."""
    run, results = read_json(folder / RUN_FILE), read_json(folder / RESULTS_FILE)
    role = role or results["model"]
    stage = role if run["mode"] == "distilled" else run["mode"]
    target = WEIGHTS_FOLDER / f"{name}.safetensors"
    corpora = list(MEMBERS) if "+" in run["corpus"] else [run["corpus"]]
    title = combine(run["corpus"].split("+")).title
    heard = f"{title}, {run['split']['train']} clips ({run['split']['note']})"
    try:
        manifest = load_manifest(ROOT / MANIFEST_FILE)
    except WeightsError:
        manifest = Manifest(default=name, models={})
    probed = (run["recipe"]["initial_weights"] or manifest.default) if run["mode"] == "probe" else None
    if probed in manifest.models and probed != name:  # all but the head is a bundled model's, of CREMA-D
        corpora = ["crema-d", *(corpus for corpus in corpora if corpus != "crema-d")]
        heard = f"head: {heard}; all else: as {probed}"
    place = folder if role == results["model"] else folder / role
    network, config = load_checkpoint(place / WEIGHTS_FILE)
    speakers = speakers_heard(place)  # before the file of a model that this one was trained from is replaced
    if under := backbone(name, network, probed, manifest.models):
        save_checkpoint(target, network, config, backbone=under.name)
    else:
        shutil.copyfile(place / WEIGHTS_FILE, target)
    entry = WeightEntry(
        name=name,
        file=target.name,
        backbone=None if under is None else under.name,
        backbone_sha256=None if under is None else under.sha256,
        sha256=sha256_file(target),
        size_bytes=target.stat().st_size,
        config=config,
        trained_on=heard,
        heard=speakers,
        recipe=f"{recipe_of(run)}, stage {stage}, seed {run['seed']}",
        metrics=tuple(scored_parts(folder, run, results["scores"][role], role)),
        license="; ".join(LICENSES[corpus] for corpus in reversed(corpora)),
        citation="; ".join([METHOD, *(CITATIONS[corpus] for corpus in corpora)]),
    )
    models = {**manifest.models, name: entry}
    for other in [other for other in models.values() if other.backbone == name]:
        if other.backbone_sha256 != entry.sha256:
            del models[other.name]
            print(f"{other.name} is no longer bundled: its head was fitted on another {name}, so fit it again")
    models = dict(sorted(models.items(), key=lambda item: (item[0] != manifest.default, item[0])))
    manifest = dataclasses.replace(manifest, models=models)
    write_manifest(ROOT / MANIFEST_FILE, manifest)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
