"""How a head for several corpora does on a corpus that neither it nor its network has heard. Write docs/UNHEARD.md.

python scripts/unheard.py CORPORA NETWORK...    folder with crema-d, emodb and savee; models trained on CREMA-D alone

The head is the one of `train --dataset general --stage probe`, fitted on CREMA-D, without its test speakers, and one
other corpus, with four augmented copies instead of sixteen, for the time.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from speech_emotion_vit.models import SpectrogramViT
from speech_emotion_vit.training.catalogue import CORPORA, find_corpus
from speech_emotion_vit.training.data import Rows
from speech_emotion_vit.training.dataset import Data, load_data
from speech_emotion_vit.training.metrics import (
    bootstrap_interval,
    confusion_matrix,
    mean_probabilities,
    unweighted_average_recall,
)
from speech_emotion_vit.training.pretrained import headless, load_model
from speech_emotion_vit.training.probe import fit_probe
from speech_emotion_vit.training.protocols import CREMA_D_TEST, Item
from speech_emotion_vit.training.recipes import RECIPES
from speech_emotion_vit.training.scoring import score_rows

TARGET = Path(__file__).resolve().parent.parent / "docs" / "UNHEARD.md"
COPIES = 4
HEAD = """# A corpus that was never heard

Written by `python scripts/unheard.py CORPORA NETWORK...`: a head like that of `general`, on CREMA-D and one other
corpus, with four augmented copies instead of sixteen, scored on the corpus that is left and on CREMA-D's test speakers.
UA in percent of the six emotions that the corpora share, where guessing gets 16.7, with a 95 % bootstrap interval over
speakers, and in brackets the answer that is given most often, and how often. The networks have heard CREMA-D alone; the
floor in the front-end of `crema-d-noise` was chosen with an eye on EmoDB and SAVEE.

"""


def rows_of(data: Data, *, test: bool, shared: Sequence[str] = ()) -> Rows:
    """Return the clips of `data`, of CREMA-D those of the test speakers or of all others.

    With `shared`, only clips with these labels, and no other answer is possible.
    """
    clips = [
        u
        for u in data.utterances
        if (u.corpus != "crema-d" or (u.speaker.removeprefix("crema-d/") in CREMA_D_TEST) == test)
        and (not shared or u.label in shared)
        and u.id not in data.corpus.defects
    ]
    possible = data.possible
    if shared:
        possible = {u.id: tuple(label in shared for label in data.labels) for u in clips}
    items = [Item(u.id, 0) for u in clips]
    return Rows(items, data.stores, data.classes, device=torch.device("cpu"), possible=possible)


def only(data: Data, *corpora: str, labels: Sequence[str] = ()) -> Data:
    """Return the part of `data` that is of `corpora`, with `labels`, or those that occur in it."""
    clips = tuple(u for u in data.utterances if u.corpus in corpora and (not labels or u.label in labels))
    return dataclasses.replace(data, utterances=clips, labels=tuple(labels or sorted({u.label for u in clips})))


def score(network: SpectrogramViT, data: Data, rows: Rows) -> str:
    """Return UA with its interval, and the favourite answer."""
    targets, classes = rows.clip_targets, len(data.labels)
    chosen = mean_probabilities(score_rows(network, rows), rows.owners).argmax(axis=1)
    ua = unweighted_average_recall(confusion_matrix(targets, chosen, classes))
    spread = bootstrap_interval(targets, chosen, [data.speakers[item.utterance] for item in rows.items], classes)
    assert spread is not None  # no corpus has one speaker
    counts = np.bincount(chosen, minlength=classes)
    favourite = f"{data.labels[counts.argmax()]} {counts.max() / len(chosen):.0%}"
    return f"{100 * ua:.1f} ({100 * spread[0]:.1f} to {100 * spread[1]:.1f}; {favourite})"


def main(folder: Path, names: Sequence[str]) -> None:
    """Fit the heads and write the table, a row per head and corpus, a column per network."""
    corpus, place = find_corpus("general", folder)
    cells: dict[tuple[str, str], list[str]] = {}
    for name in names:
        recipe = dataclasses.replace(RECIPES["robust"], frontend=load_model(name)[1].frontend)
        settings = dataclasses.replace(recipe.probe, copies=COPIES)
        data = load_data(corpus, place, recipe, say=lambda line: print(line, file=sys.stderr))
        shared = data.members["crema-d"]
        for other, unheard in (("emodb", "savee"), ("savee", "emodb")):
            heard = only(data, "crema-d", other)
            train = rows_of(heard, test=False)
            network, _, _ = headless(name, len(heard.labels), recipe.frontend)
            speakers = [heard.speakers[item.utterance] for item in train.items]
            fit_probe(network, train, speakers, settings, recipe.augmentation, 0)
            for scored in (unheard, "crema-d"):
                clips = only(data, scored, labels=heard.labels)
                found = score(network, clips, rows_of(clips, test=True, shared=shared))
                row = f"CREMA-D and {CORPORA[other].title}", CORPORA[scored].title
                cells.setdefault(row, []).append(found)
                print(name, *row, found, flush=True)
    lines = ["| head fitted on | scored on | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("|---" * (2 + len(names)) + "|")
    lines += [f"| {fitted} | {scored} | " + " | ".join(found) + " |" for (fitted, scored), found in cells.items()]
    TARGET.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
