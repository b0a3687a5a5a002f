"""Collect finished runs and write docs/RESULTS.md from them.

python scripts/results.py                       render what docs/runs holds
python scripts/results.py runs/A runs/B ...     first copy the records of these runs there
python scripts/results.py --check               exit 1 if the document is out of date

Only records are copied (what was asked for, scores, epochs), no weights. Every number in the tables is read from them.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from speech_emotion_vit.files import whole_file
from speech_emotion_vit.manifest import load_manifest
from speech_emotion_vit.training.recipes import RECIPES, Recipe

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "docs" / "runs"
TARGET = ROOT / "docs" / "RESULTS.md"
RECORDS = ("run.json", "results.json", "history.csv")

# What the project wants to know, so that a table also shows what nobody has measured yet.
WANTED_CORPORA = ("crema-d", "emodb", "savee")
WANTED = {
    "teacher": ("distilled", "teacher"),
    "student with it": ("distilled", "student"),
    "student alone": ("supervised", "student"),
}

# Which commit's bundled file `crema-d` meant in recipes, where today's has other tensors or another temperature.
BUNDLED_THEN = {
    "crema-d-speaker-again-final": "70e70ef",
    "crema-d-speaker-keep-calm-final": "c4ca014",
    "crema-d-speaker-keep-final": "c4ca014",
    "crema-d-speaker-noise-again": "a3a6c9f",
    "emodb-speaker-probe-plain": "c4ca014",
    "emodb-speaker-probe-svm": "f327704",
    "emodb-speaker-robust": "0d82490",
    "general": "0d82490",
    "savee-random-robust": "3d8119b",
    "savee-speaker-probe-plain": "c4ca014",
    "savee-speaker-probe-svm": "f327704",
    "savee-speaker-robust": "3d8119b",
}

# The paper's claims: what is better, of which network, in which run with it and in which without.
CLAIMS = {
    "patches of 128 x 1, not 16 x 16": (
        "student",
        [
            ("savee-paper-alone", "savee-paper-alone-16x16"),
            ("emodb-paper-alone", "emodb-paper-alone-16x16"),
            ("savee-speaker-claim-alone", "savee-speaker-claim-16x16"),
            ("emodb-speaker-claim-alone", "emodb-speaker-claim-16x16"),
        ],
    ),
    **{
        claim: (
            "teacher",
            [
                (f"{base}-{'claim-all' if base.endswith('speaker') else 'paper'}", f"{base}-claim-{without}")
                for base in ("savee-speaker", "emodb-speaker", "savee-paper", "emodb-paper")
            ],
        )
        for claim, without in (
            ("coordinates", "no-ice"),
            ("convolutional stem", "no-stem"),
            ("coordinates and stem", "neither"),
        )
    },
    "teacher and matching": (
        "student",
        [
            ("savee-paper-paper", "savee-paper-alone"),
            ("emodb-paper-paper", "emodb-paper-alone"),
            ("savee-speaker-claim-all", "savee-speaker-claim-alone"),
            ("emodb-speaker-claim-all", "emodb-speaker-claim-alone"),
        ],
    ),
}


def run_name(folder: Path) -> str:
    """Return what a run is called in the documents; the folder of `--fold final` lies inside its run's."""
    return f"{folder.parent.name}-final" if folder.name == "final" else folder.name


def collect(folder: Path) -> None:
    """Copy the records of a finished run."""
    if not (folder / "results.json").is_file():
        sys.exit(f"{folder}: holds no finished run")
    target = RUNS / run_name(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in RECORDS:
        if (folder / name).is_file():  # several folds have no common history
            shutil.copyfile(folder / name, target / name)


def load(folder: Path) -> dict[str, Any]:
    """Return a run's records."""
    run, results = (json.loads((folder / name).read_text(encoding="utf-8")) for name in RECORDS[:2])
    return {"name": folder.name, **run, **results, "recipe": Recipe.from_dict(run["recipe"]).to_dict()}


def percent(value: float, interval: list[float] | None = None) -> str:
    """Return a share in percent, with its interval."""
    return f"{100 * value:.1f}" + (f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else "")


def changes(run: dict[str, Any]) -> list[str]:
    """Return the values of a run that are not those of its recipe, as `--set` takes them."""

    def differing(values: dict[str, Any], preset: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for name, value in values.items():
            if isinstance(value, dict):
                found += differing(value, preset[name], f"{prefix}{name}.")
            elif value != preset[name]:
                found.append(f"{prefix}{name}={json.dumps(value) if isinstance(value, list) else value}")
        return found

    of_default = f"initial_weights={load_manifest().default}"  # what a probe takes without it
    found = differing(run["recipe"], RECIPES[run["recipe"]["name"]].to_dict())
    return [change for change in found if run["mode"] != "probe" or change != of_default]


def missing_lines(runs: list[dict[str, Any]]) -> list[str]:
    """Return a line that says which networks no run has trained with the values of their recipe."""
    there = {(run["recipe"]["name"], run["mode"], role) for run in runs if not changes(run) for role in run["scores"]}
    missing = [
        f"`{recipe}`: {', '.join(networks)}"
        for recipe in ("robust", "paper")
        if (networks := [text for text, way in WANTED.items() if (recipe, *way) not in there])
    ]
    return [f"Not run with the recipe's own values: {'; '.join(missing)}.", ""] if missing else []


def score_lines(run: dict[str, Any]) -> list[str]:
    """Return a line per network and part of the split."""
    lines = []
    for role, parts in sorted(run["scores"].items(), reverse=True):
        shape = "compact" if run["recipe"].get(f"{role}_network") == "compact" else "paper's"
        for part, s in sorted(parts.items()):
            recipe = run["recipe"]["name"] + "*" * bool(changes(run))
            about = f"{run['name']} | {recipe}, {run['mode']} | {role} ({shape}) | {part}"
            scores = [percent(s["ua"], s["ua_interval"]), *(percent(s[key]) for key in ("wa", "macro_f1", "ece"))]
            size = f"{s['clips']} of {s['speakers']}"
            lines.append(f"| {about} | {size} | {' | '.join(scores)} | {run['split']['leakage']:.1%} |")
    return lines


def seed_lines(runs: list[dict[str, Any]]) -> list[str]:
    """Return a line per network that was trained from several seeds and is the same in all else."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        key = json.dumps([run[name] for name in ("corpus", "protocol", "fold", "mode", "recipe")])
        key = re.sub(r"-seed-\d+", "", key)  # a run may begin where the run of the same seed ended
        groups.setdefault(key, []).append(run)
    lines = []
    for group in groups.values():
        if len({run["seed"] for run in group}) < 2:
            continue
        for role in sorted(group[0]["scores"], reverse=True):
            for part in (part for part in group[0]["scores"][role] if part.startswith("test")):
                cells = []
                for name in ("ua", "wa", "ece"):
                    values = [run["scores"][role][part][name] for run in group]
                    interval = f"{percent(min(values))} to {percent(max(values))}"
                    cells.append(f"{percent(statistics.mean(values))} ({interval})")
                lines.append(f"| {group[0]['name']} | {role} | {part} | {len(group)} | {' | '.join(cells)} |")
    return ["| run | network | part | seeds | UA | WA | ECE |", "|---" * 7 + "|", *lines] if lines else []


def claim_lines(runs: list[dict[str, Any]]) -> list[str]:
    """Return a line per claim, corpus and protocol: the score with what is claimed to help, and without."""
    by_name = {run["name"]: run for run in runs}
    lines = []
    for claim, (role, pairs) in CLAIMS.items():
        for pair in pairs:
            corpus, protocol = pair[0].split("-")[:2]
            about = f"| {claim} | {role} | {corpus}, `{protocol}` | "
            if missing := [name for name in pair if name not in by_name or role not in by_name[name]["scores"]]:
                lines.append(f"{about}not run: {role} of {', '.join(missing)} | | |")
                continue
            scores = [by_name[name]["scores"][role]["test"] for name in pair]
            cells = [f"{percent(s['ua'], s['ua_interval'])}, {percent(s['wa'])}" for s in scores]
            lines.append(f"{about}{' | '.join(cells)} | {100 * (scores[0]['ua'] - scores[1]['ua']):+.1f} |")
    return lines


def render(runs: list[dict[str, Any]]) -> str:
    """Return the document."""
    text = [
        "# Results",
        "",
        "Written by `python scripts/results.py` from `docs/runs`: no number in a table is typed by hand.",
        "UA is the mean recall over emotions, in percent, with a 95 % bootstrap interval over speakers. **leak** is",
        "the share of test items with a version of the same recording in training; a run refuses to start from a",
        "network that is known to have heard them. Epochs are chosen on validation items, under `speaker` those of",
        "speakers that are in no other part; `paper`, folds without them and recipes with `keep_best` false take the",
        "last epoch. Epochs, penalties and temperatures of a run never see its test items; what a probe reads, how it",
        "is fitted and which penalties are tried was decided among trials that did (below). One seed per run. A recipe",
        "with a star has other values than the preset of its name: they are listed at the end.",
        "",
        "The recordings were copies as 16 kHz FLAC with the lowest bits rounded, 60 to 70 dB below a clip's peak,",
        "SAVEE's resampled from 44.1 kHz: with the original files a score may differ a little.",
        "",
    ]
    head = "| run | recipe | network | part | clips, speakers | UA | WA | macro-F1 | ECE | leak |"
    for corpus in ("crema-d", "emodb", "savee", "general"):
        text += [f"## {corpus}", ""]
        for protocol in ("speaker", "random", "paper"):
            found = [r for r in runs if (r["corpus"], r["protocol"]) == (corpus, protocol)]
            missing = missing_lines(found) if corpus in WANTED_CORPORA else []
            if found or missing:
                text += [f"### `{protocol}`", ""]
            if found:
                text += [head, "|---" * 10 + "|", *(line for run in found for line in score_lines(run)), ""]
            text += missing
        if corpus == "general":
            text += [
                "CREMA-D's test speakers are tested in each of the five folds: their 1392 clips stand here five times.",
                "",
            ]
    text += [
        "## Seeds",
        "",
        "Test scores of runs whose recipes differ in nothing but their seed: mean, lowest and highest. The first is",
        "named, the others have `-seed-1` and so on in their names. A probe's seed says which augmented copies it",
        "learns from.",
        "",
        *(seeds_table if (seeds_table := seed_lines(runs)) else ["Not run."]),
        "",
        "## The paper's claims",
        "",
        "UA with its interval, and WA, of the test items, with what is claimed to help and without. Under `speaker`",
        "runs named `claim` take the recordings alone, without their three further versions, four times the learning",
        "rate for it, and 20 epochs for the teacher, without its stem 50; under `paper` they are as published.",
        "",
        "| claim: better with | network | corpus, protocol | with: UA, WA | without: UA, WA | difference in UA |",
        "|---" * 6 + "|",
        *claim_lines(runs),
        "",
        "## What it cost",
        "",
        "Peak memory is the process's, features mapped from disk included; older runs did not record it.",
        "",
    ]
    text += ["| run | stage | epochs | minutes | peak memory | hardware |", "|---" * 6 + "|"]
    for run in runs:
        hardware = f"{run['hardware']['device']}, {run['hardware']['cores']} cores"
        memory = f"{run['peak_memory'] / 2**20:,.0f} MiB" if run.get("peak_memory") else ""
        text += [
            f"| {run['name']} | {stage} | {run['epochs'][stage]} | {seconds / 60:.0f} | {memory} | {hardware} |"
            for stage, seconds in run["seconds"].items()
        ]
    text += ["", "## How to repeat a run", ""]
    text += [
        "`docs/runs/NAME/run.json` holds the whole recipe of a run: save its `recipe` value as `recipe.json`, then"
    ]
    text += ["", "```"]
    for run in runs:
        stage = "all" if len(run["epochs"]) > 1 else next(iter(run["epochs"]))  # a run of folds takes all by default
        output, fold = run["name"], ""
        precision = f" --precision {run['precision']}" if run["precision"] != "no" else ""
        if run["fold"] == "final":  # goes into a folder inside the run it takes its temperature from
            output, fold = output.removesuffix("-final"), " --fold final"
        text.append(
            f"speech-emotion-vit train --dataset {run['corpus']} --data-dir DIR --protocol {run['protocol']} "
            f"--recipe recipe.json --stage {stage} --seed {run['seed']}{precision} --output runs/{output}{fold}"
        )
    text += ["```", "", "Where `recipe.json` differs from the preset it is named after (`--set` takes the same):", ""]
    text += [
        f"- {run['name']}: {', '.join(f'`{change}`' for change in changed)}"
        for run in runs
        if (changed := changes(run))
    ]
    text += [
        "",
        "`crema-d` in a recipe is the file that was bundled when the run was made: for these, not today's.",
    ]
    text += ["", *(f"- {name}: commit {commit}" for name, commit in BUNDLED_THEN.items()), ""]
    text += [
        "and the same for their further seeds. `git show COMMIT:src/speech_emotion_vit/weights/crema-d.safetensors >",
        "then.safetensors` restores it, `--set initial_weights=then.safetensors` starts from it.",
    ]
    notes = (RUNS / "NOTES.md").read_text(encoding="utf-8")
    return "\n".join([*text, "", notes])


def main(arguments: list[str]) -> None:
    """Collect the runs in the folders that are named, and write the document or check it."""
    check = arguments == ["--check"]
    for argument in [] if check else arguments:
        collect(Path(argument))
    rendered = render([load(folder) for folder in sorted(RUNS.iterdir()) if (folder / "results.json").is_file()])
    if check:
        if TARGET.read_text(encoding="utf-8") != rendered:
            sys.exit(f"{TARGET}: is out of date: run python scripts/results.py")
        return
    with whole_file(TARGET) as temporary:
        temporary.write_text(rendered, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
