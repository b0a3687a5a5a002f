"""What other packages make of the answers: audformat of the tables, audmetric of the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import audformat
import audmetric
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import CLIPS, speech
from speech_emotion_vit import fit_head
from speech_emotion_vit.training.score.metrics import score_clips

if TYPE_CHECKING:
    from pathlib import Path

    from speech_emotion_vit import EmotionClassifier


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """Speech, and then nobody for a while."""
    soundfile.write(tmp_path / "call.wav", np.pad(speech(10.0), (0, 10 * 16_000)), 16_000)
    return tmp_path / "call.wav"


def test_a_timeline_is_a_segmented_table_of_audformat(classifier: EmotionClassifier, call: Path) -> None:
    timeline = classifier.timeline(call)
    frame = timeline.to_frame()
    audformat.assert_index(frame.index)
    assert audformat.is_segmented_index(frame.index)
    spans = [(str(call), pd.Timedelta(s.start, "s"), pd.Timedelta(s.end, "s")) for s in timeline.segments]
    assert frame.index.to_list() == spans
    theirs = audformat.segmented_index(*zip(*spans, strict=True))
    assert len(audformat.utils.intersect([frame.index, theirs])) == len(frame)
    assert audformat.utils.duration(frame.index) == sum((end - start for _, start, end in spans), pd.Timedelta(0))


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # audformat's own, with pandas 3.1
def test_a_database_of_audformat_keeps_it(classifier: EmotionClassifier, call: Path, tmp_path: Path) -> None:
    frame = classifier.timeline(call).to_frame()
    assert frame["label"].isna().any()
    database = audformat.Database("calls")
    database.schemes["emotion"] = audformat.Scheme(labels=list(classifier.labels))
    database.schemes["probability"] = audformat.Scheme("float", minimum=0, maximum=1)
    table = database["emotion"] = audformat.Table(frame.index)
    for column in ("label", *classifier.labels):
        table[column] = audformat.Column(scheme_id="emotion" if column == "label" else "probability")
        table[column].set(frame[column])
    database.save(tmp_path / "database")
    again = audformat.Database.load(tmp_path / "database")["emotion"].df
    audformat.assert_index(again.index)
    assert again.index.to_list() == frame.index.to_list()
    assert [None if pd.isna(label) else label for label in again["label"]] == [
        None if pd.isna(label) else label for label in frame["label"]
    ]
    assert np.allclose(again[list(classifier.labels)], frame[list(classifier.labels)], equal_nan=True)


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_audmetric_agrees_with_the_scores(pairs: list[tuple[int, int]]) -> None:
    targets, predictions = np.array(pairs).T
    names = ("anger", "fear", "joy", "none")
    scores = score_clips(np.eye(4)[predictions], targets, [""] * len(targets), names)
    truth, prediction = [[names[index] for index in each] for each in (targets, predictions)]
    # A class without clips has no recall here; there it has one of 0, and its part in the mean.
    share = len(set(truth)) / len({*truth, *prediction})
    assert scores.wa == pytest.approx(audmetric.accuracy(truth, prediction))
    assert share * scores.ua == pytest.approx(audmetric.unweighted_average_recall(truth, prediction))
    assert scores.macro_f1 == pytest.approx(audmetric.unweighted_average_fscore(truth, prediction))
    assert [list(row) for row in scores.confusion] == audmetric.confusion_matrix(truth, prediction, labels=names)


def test_audmetric_agrees_with_the_evaluation_of_a_head(rng: np.random.Generator) -> None:
    clips = [clip.read_bytes() for clip in CLIPS] * 2
    evaluation = fit_head(clips, list("aabbcc") * 2, [str(n) for n in range(4) for _ in range(3)]).evaluation
    assert evaluation is not None
    counts = np.array(evaluation.confusion)
    truth, prediction = np.repeat(np.array(list(np.ndindex(counts.shape))), counts.ravel(), axis=0).T
    assert counts.sum() == 12
    assert evaluation.ua == pytest.approx(audmetric.unweighted_average_recall(truth, prediction, labels=[0, 1, 2]))
