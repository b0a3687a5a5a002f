"""What the functionals of ComParE 2016 tell on new voices beside what a probe reads.

python scripts/functionals.py CORPUS FOLDER        CORPUS is emodb or savee; needs the extra `bench`
python scripts/functionals.py CORPUS FOLDER --svm  a linear SVM on them alone, the usual baseline

Ridge regression on the classes, one speaker left out at a time, its penalty chosen by the loss on the training speakers
left out in the same way, without augmented copies. Every part that is added has the same variance in all, a third of
that of the probe's own values, however many numbers it has.

The SVM takes them standardised, classes alike, its cost chosen by the UA on the training speakers left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import opensmile
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from speech_emotion_vit import EmotionClassifier
from speech_emotion_vit.audio import AudioReader
from speech_emotion_vit.config import CONTOUR_STATISTICS
from speech_emotion_vit.training.catalogue import find_corpus
from speech_emotion_vit.training.metrics import (
    confusion_matrix,
    fit_temperature,
    mean_probabilities,
    negative_log_likelihood,
    unweighted_average_recall,
)

PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03)
COSTS = (1e-5, 1e-4, 1e-3, 1e-2)

Values = npt.NDArray[np.float64]

GROUPS = {
    "energy, loudness, zero crossings": r"pcm_RMSenergy|audspecRasta_lengthL1norm|audspec_lengthL1norm|pcm_zcr",
    "energy alone": "pcm_RMSenergy",
    "pitch and voice quality": "F0final|voicingFinalUnclipped|jitter|shimmer|logHNR",
    "spectrum": "pcm_fftMag",
    "all": "",
}


def functionals(paths: list[Path], *, one_peak: bool) -> tuple[Values, list[str]]:
    """Return the values `[clips, 6373]` and their names, of the clips or of them brought to one peak."""
    smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)
    rows = []
    for path in paths:
        samples = np.concatenate(list(AudioReader(path)))
        if one_peak:
            samples = samples * (0.5 / np.abs(samples).max())
        rows.append(smile.process_signal(samples, 16_000).to_numpy()[0])
    return np.nan_to_num(np.array(rows, np.float64)), list(smile.feature_names)


def standardised(values: Values, variance: float) -> Values:
    """Return columns of one variance each, `variance` in all; what never changes stays out."""
    values = values[:, values.std(axis=0) > 1e-6]
    return np.asarray(StandardScaler().fit_transform(values)) * np.sqrt(variance / values.shape[1])


def margins(values: Values, targets: npt.NDArray[np.int64], fit: npt.NDArray[np.bool_], penalty: float) -> Values:
    """Return the margins `[clips, classes]` of ridge regression on the clips `fit`, all classes alike."""
    counts = np.bincount(targets[fit])
    wanted = 2.0 * np.eye(len(counts))[targets] - 1.0
    weights = 1.0 / (len(counts) * counts[targets])
    return np.asarray(Ridge(penalty).fit(values[fit], wanted[fit], weights[fit]).predict(values))


def loss(logits: Values, targets: npt.NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood at the temperature that is best for it."""
    owners = np.arange(len(targets))
    temperature = fit_temperature(logits, owners, targets)
    return negative_log_likelihood(targets, mean_probabilities(logits, owners, temperature))


def score(parts: list[Values], targets: npt.NDArray[np.int64], speakers: npt.NDArray[np.str_]) -> tuple[float, float]:
    """Return the UA on speakers left out, and the loss on training speakers left out that chose the penalties."""
    left, sizes, _ = np.linalg.svd(np.concatenate(parts, axis=1), full_matrices=False)
    values = left * sizes  # as few numbers as there are clips, and the same ridge regression
    everybody = np.unique(speakers)
    classes = int(targets.max()) + 1
    predicted, losses = np.empty_like(targets), []
    for test in everybody:
        others = speakers != test
        unseen = {penalty: np.zeros((len(targets), classes)) for penalty in PENALTIES}
        for penalty, logits in unseen.items():
            for speaker in everybody[everybody != test]:
                part = speakers == speaker
                logits[part] = margins(values, targets, others & ~part, penalty)[part]
        found = {penalty: loss(logits[others], targets[others]) for penalty, logits in unseen.items()}
        best = min(found, key=found.__getitem__)
        losses.append(found[best])
        predicted[~others] = margins(values, targets, others, best)[~others].argmax(axis=1)
    return unweighted_average_recall(confusion_matrix(targets, predicted, classes)), float(np.mean(losses))


def score_svm(values: Values, targets: npt.NDArray[np.int64], speakers: npt.NDArray[np.str_]) -> tuple[float, float]:
    """Return the UA on speakers left out, and the mean of that on training speakers left out which chose the costs."""
    machine = make_pipeline(StandardScaler(), LinearSVC(class_weight="balanced", random_state=0))
    predicted, chosen_by = np.empty_like(targets), []
    for fit, test in LeaveOneGroupOut().split(values, targets, speakers):
        found = {}
        for cost in COSTS:
            machine.set_params(linearsvc__C=cost)
            unseen = cross_val_predict(machine, values[fit], targets[fit], groups=speakers[fit], cv=LeaveOneGroupOut())
            found[cost] = unweighted_average_recall(confusion_matrix(targets[fit], unseen, int(targets.max()) + 1))
        best = max(found, key=found.__getitem__)
        chosen_by.append(found[best])
        predicted[test] = machine.set_params(linearsvc__C=best).fit(values[fit], targets[fit]).predict(values[test])
    ua = unweighted_average_recall(confusion_matrix(targets, predicted, int(targets.max()) + 1))
    return ua, float(np.mean(chosen_by))


def main(name: str, folder: Path, *, svm: bool) -> None:
    """Print a line for every set of values."""
    corpus, folder = find_corpus(name, folder)
    clips = [clip for clip in corpus.read(folder) if clip.id not in corpus.defects]
    speakers = np.array([clip.speaker for clip in clips])
    targets = np.unique([clip.label for clip in clips], return_inverse=True)[1]
    paths = [clip.path for clip in clips]
    if svm:
        ua, left_out = score_svm(functionals(paths, one_peak=False)[0], targets, speakers)
        print(f"{corpus.title}: UA on speakers left out {ua:.1%}, on training speakers left out {left_out:.1%}")
        return
    classifier = EmotionClassifier(name)
    embeddings = np.stack([classifier.embed(path) for path in paths]).astype(np.float64)
    probe = standardised(embeddings[:, :-CONTOUR_STATISTICS], 3.0)
    sets = {"what a probe reads but for contours": [probe]}
    sets["with contours"] = [probe, standardised(embeddings[:, -CONTOUR_STATISTICS:], 1.0)]
    values, names = functionals(paths, one_peak=False)
    for title, pattern in GROUPS.items():
        chosen = [bool(re.match(pattern, each)) for each in names]
        sets[f"with ComParE's {title} ({sum(chosen)})"] = [probe, standardised(values[:, chosen], 1.0)]
    sets["with all, clips brought to one peak"] = [probe, standardised(functionals(paths, one_peak=True)[0], 1.0)]
    sets["ComParE alone"] = [standardised(values, 3.0)]
    sets["with all and contours"] = [*sets["with contours"], standardised(values, 1.0)]
    print(f"{corpus.title}: UA on speakers left out, loss on training speakers left out")
    for title, parts in sets.items():
        ua, left_out = score(parts, targets, speakers)
        print(f"{ua:6.1%}  {left_out:.3f}  {title}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], ["--svm"]):
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), svm=len(sys.argv) == 4)
