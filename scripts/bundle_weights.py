"""Bundle a network of a finished run: copy its weights, and write its record from what the run measured.

python scripts/bundle_weights.py runs/crema-d crema-d          the network the run was for
python scripts/bundle_weights.py runs/crema-d crema-d teacher  its teacher
python scripts/bundle_weights.py runs/savee/final savee        trained on all speakers, with the score of the folds

Nothing is typed by hand: the scores are those of the run's ``results.json``, measured on the very file that is copied,
or, for a network trained on all speakers, on those of the folds beside it, none of which had heard its test speaker.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

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

ROOT = Path(__file__).resolve().parent.parent
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


def metrics(results: dict[str, Any], role: str, protocol: str, part: str) -> list[Metric]:
    """Return the scores of a network on one part of the split."""
    scores = results["scores"][role][part]
    common = {"protocol": protocol, "split": part, "clips": scores["clips"], "speakers": scores["speakers"], "seeds": 1}

    def interval(name: str) -> tuple[float, float]:
        low, high = scores[f"{name}_interval"]
        return (low, high)

    return [
        Metric(name="UA", value=scores["ua"], interval=interval("ua"), **common),
        Metric(name="WA", value=scores["wa"], interval=interval("wa"), **common),
        Metric(name="macro-F1", value=scores["macro_f1"], **common),
        Metric(name="ECE", value=scores["ece"], **common),
    ]


def main(folder: Path, name: str, role: str | None = None) -> None:
    """Copy the weights of the run in `folder` and enter them as `name`."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    scored = folder.parent if run["fold"] == "final" else folder
    results = json.loads((scored / "results.json").read_text(encoding="utf-8"))
    role = role or results["model"]
    stage = "supervised" if run["mode"] == "supervised" else role
    place = folder if role == results["model"] else folder / role
    target = WEIGHTS_FOLDER / f"{name}.safetensors"
    shutil.copyfile(place / WEIGHTS_FILE, target)
    entry = WeightEntry(
        name=name,
        file=target.name,
        sha256=sha256_file(target),
        size_bytes=target.stat().st_size,
        config=read_config_json(place / CONFIG_FILE),
        trained_on=f"{run['corpus']}, {run['split']['train']} clips ({run['split']['note']})",
        recipe=f"{run['recipe']['name']}, stage {stage}, seed {run['seed']}",
        metrics=tuple(
            metric
            for part in ("test", "validation")
            if part in results["scores"][role]
            for metric in metrics(results, role, run["protocol"], part)
        ),
        license=LICENSES[run["corpus"]],
        citation=f"{METHOD}; {CITATIONS[run['corpus']]}",
    )
    try:
        manifest = load_manifest(ROOT / MANIFEST_FILE)
    except WeightsError:
        manifest = Manifest(default=name, models={})
    manifest = dataclasses.replace(manifest, models={**manifest.models, name: entry})
    write_manifest(ROOT / MANIFEST_FILE, manifest)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
