"""With other packages: columns of datasets in, audformat's tables and audmetric's scores out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import audformat
import audmetric
import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
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
def clips() -> datasets.Dataset:
    """The example clips, one by name and the others by content, as in Parquet files of the Hub."""
    rows = [{"path": str(CLIPS[0]), "bytes": None}, *({"path": None, "bytes": c.read_bytes()} for c in CLIPS[1:])]
    features = datasets.Features({"audio": datasets.Audio(decode=False)})
    table = pa.table({"audio": pa.array(rows, features["audio"].pa_type)})
    return datasets.Dataset(datasets.table.InMemoryTable(table), info=datasets.DatasetInfo(features=features))


def test_a_column_of_datasets_is_read_without_its_decoder(
    classifier: EmotionClassifier, clips: datasets.Dataset
) -> None:
    expected = classifier.predict_batch(CLIPS)
    assert set(clips[0]["audio"]) == {"bytes", "path"}
    assert classifier.predict_batch(clips["audio"]) == expected
    assert classifier.predict_batch(clips) == expected
    assert list(classifier.iter_predictions(row["audio"] for row in clips.to_iterable_dataset())) == expected

    def heard(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"emotion": [p.label for p in classifier.predict_batch(rows["audio"])]}

    labelled = clips.map(heard, batched=True, batch_size=4, new_fingerprint="heard")
    assert labelled["emotion"][:] == [p.label for p in expected]


@pytest.mark.torchcodec
def test_a_column_of_datasets_is_read_with_its_decoder(classifier: EmotionClassifier, clips: datasets.Dataset) -> None:
    from torchcodec.decoders import AudioDecoder

    decoded = clips.cast_column("audio", datasets.Audio())
    assert isinstance(decoded[0]["audio"], AudioDecoder)
    expected = classifier.predict_batch(CLIPS)
    assert classifier.predict_batch(decoded["audio"]) == expected
    samples = AudioDecoder(CLIPS[0]).get_all_samples()
    assert [classifier.predict(each) for each in (samples, AudioDecoder(CLIPS[0]))] == [
        classifier.predict(CLIPS[0])
    ] * 2
    other = classifier.predict_batch(clips.cast_column("audio", datasets.Audio(sampling_rate=48_000))["audio"])
    assert [p.duration for p in other] == pytest.approx([p.duration for p in expected], abs=1e-3)
    assert [p.label for p in other] == [p.label for p in expected]


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
