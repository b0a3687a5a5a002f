"""Bundle a network of a finished run: copy its weights, and write its record from what the run measured.

python scripts/bundle_weights.py runs/crema-d crema-d          the network the run was for
python scripts/bundle_weights.py runs/crema-d crema-d teacher  its teacher
python scripts/bundle_weights.py runs/crema-d/final crema-d    trained on validation speakers too: its own test score
python scripts/bundle_weights.py runs/savee/final savee        trained on all speakers, with the score of the folds
python scripts/bundle_weights.py runs/general/final general    trained on all corpora: CREMA-D's score is the file's own
python scripts/bundle_weights.py runs/general/final emodb      the same, with EmoDB's labels and temperature alone

Nothing is typed by hand: the scores are those of the run's ``results.json``, measured on the very file that is copied,
or, for a network trained on all speakers, on those of the folds beside it, none of which had heard its test speaker.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from speech_emotion_vit.checkpoint import load_checkpoint, save_folder
from speech_emotion_vit.errors import WeightsError
from speech_emotion_vit.hub import WEIGHTS_FOLDER, sha256_file
from speech_emotion_vit.manifest import (
    CONFIG_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Manifest,
    Metric,
    WeightEntry,
    load_manifest,
    read_config_json,
    write_manifest,
)
from speech_emotion_vit.models import SpectrogramViT
from speech_emotion_vit.training.catalogue import CORPORA
from speech_emotion_vit.training.corpora import CREMA_D_LABELS, EMODB_LABELS, SAVEE_LABELS

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = {
    "crema-d": tuple(sorted(CREMA_D_LABELS.values())),
    "emodb": tuple(sorted(EMODB_LABELS.values())),
    "savee": tuple(sorted(SAVEE_LABELS.values())),
}
METHOD = "Kim & Lee, IEEE Access 2024, doi 10.1109/ACCESS.2024.3447770"
CITATIONS = {
    "crema-d": "Cao et al., CREMA-D, doi 10.1109/TAFFC.2014.2336244",
    "emodb": "Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005",
    "savee": "Haq & Jackson, Speaker-Dependent Audio-Visual Emotion Recognition, AVSP 2009",
}
LICENSES = {
    "crema-d": "MIT; trained on CREMA-D (Open Database License 1.0)",
    "emodb": "MIT; trained on EmoDB (free to use, cite its authors)",
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


def scored_parts(folder: Path, name: str, role: str) -> list[Metric]:
    """Return all metrics of a network: of the file itself where it was scored, else of the folds beside it."""
    run, own = (json.loads((folder / file).read_text(encoding="utf-8")) for file in ("run.json", "results.json"))
    protocol, scores = run["protocol"], own["scores"][role]
    if run["fold"] != "final":
        return [m for part in ("test", "validation") if part in scores for m in metrics(scores[part], protocol, part)]
    pooled = json.loads((folder.parent / "results.json").read_text(encoding="utf-8"))["scores"][role]
    if run["corpus"] != "general":
        if "test" not in scores:
            return metrics(pooled["test"], protocol, "cross-validation")
        note = "a network that never heard them"
        return metrics(scores["test"], protocol, "test") + metrics(pooled["validation"], protocol, "validation", note)
    found = []
    for member in MEMBERS if name == "general" else [name]:
        title = CORPORA[member].title if name == "general" else None
        if f"test {member}" in scores:
            for part in ("test", "validation"):
                found += metrics(scores[f"{part} {member}"], protocol, part, title)
        else:
            note = f"{title}, networks" if title else "networks"
            there = metrics(pooled[f"test {member}"], protocol, "cross-validation", f"{note} of the folds")
            # The folds are calibrated for each corpus alone, as its own model is, and `general` is not.
            found += [metric for metric in there if not (name == "general" and metric.name == "ECE")]
    return found


def weights(folder: Path, name: str, role: str, into: Path) -> Path:
    """Return the folder of the weights to bundle: the run's, or a copy in `into` with one corpus's labels alone."""
    run, results = (json.loads((folder / file).read_text(encoding="utf-8")) for file in ("run.json", "results.json"))
    place = folder if role == results["model"] else folder / role
    if run["corpus"] != "general" or name == "general":
        return place
    pooled = json.loads((folder.parent / "results.json").read_text(encoding="utf-8"))
    temperature = pooled["temperature_by_corpus"][role].get(name)
    return restricted(place, MEMBERS[name], temperature, into)


def restricted(place: Path, labels: tuple[str, ...], temperature: float | None, into: Path) -> Path:
    """Copy a model with some of its labels: the same answers, given that it is one of these.

    Args:
        place: folder of the model.
        labels: what is kept.
        temperature: of the copy; None keeps the model's.
        into: folder of the copy.
    """
    network, config = load_checkpoint(place / WEIGHTS_FILE, None)
    kept = [config.labels.index(label) for label in labels]
    shape = dataclasses.replace(config.model, num_classes=len(labels))
    smaller = SpectrogramViT(shape)
    state = {key: value[kept] if key.startswith("head.") else value for key, value in network.state_dict().items()}
    smaller.load_state_dict(state)
    changes: dict[str, Any] = {"temperature": temperature} if temperature else {}
    save_folder(into, smaller, dataclasses.replace(config, labels=labels, model=shape, **changes))
    return into


def main(folder: Path, name: str, role: str | None = None) -> None:
    """Copy the weights of the run in `folder` and enter them as `name`."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    role = role or results["model"]
    stage = role if run["mode"] == "distilled" else run["mode"]
    target = WEIGHTS_FOLDER / f"{name}.safetensors"
    corpora = list(MEMBERS) if run["corpus"] == "general" else [run["corpus"]]
    heard = f"{CORPORA[run['corpus']].title}, {run['split']['train']} clips ({run['split']['note']})"
    if run["mode"] == "probe":  # everything but the head comes from a bundled model, which has heard CREMA-D
        corpora.insert(0, "crema-d")
        heard = f"head: {heard}; all else: as {run['recipe']['initial_weights']}"
    with TemporaryDirectory() as temporary:
        place = weights(folder, name, role, Path(temporary))
        shutil.copyfile(place / WEIGHTS_FILE, target)
        config = read_config_json(place / CONFIG_FILE)
    entry = WeightEntry(
        name=name,
        file=target.name,
        sha256=sha256_file(target),
        size_bytes=target.stat().st_size,
        config=config,
        trained_on=heard,
        recipe=f"{run['recipe']['name']}, stage {stage}, seed {run['seed']}",
        metrics=tuple(scored_parts(folder, name, role)),
        license="; ".join(LICENSES[corpus] for corpus in reversed(corpora)),
        citation="; ".join([METHOD, *(CITATIONS[corpus] for corpus in corpora)]),
    )
    try:
        manifest = load_manifest(ROOT / MANIFEST_FILE)
    except WeightsError:
        manifest = Manifest(default=name, models={})
    manifest = dataclasses.replace(manifest, models={**manifest.models, name: entry})
    write_manifest(ROOT / MANIFEST_FILE, manifest)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
