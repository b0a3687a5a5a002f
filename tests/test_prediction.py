"""Some of the labels, and a least probability."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from helpers import CLIPS, speech
from speech_emotion_vit import ConfigError, EmotionClassifier
from speech_emotion_vit.cli import main

SOME = ("neutral", "anger")


def shared(probabilities: dict[str, float]) -> dict[str, float]:
    total = probabilities["anger"] + probabilities["neutral"]
    return {label: probabilities[label] / total for label in ("anger", "neutral")}


def test_some_labels_share_all_of_the_probability(classifier: EmotionClassifier) -> None:
    every = classifier.predict(CLIPS[1])
    some = classifier.predict(CLIPS[1], labels=SOME)
    assert some.probabilities == pytest.approx(shared(every.probabilities))
    assert list(some.probabilities) == ["anger", "neutral"]
    assert some.label in SOME
    assert (some.speech, some.warnings) == (every.speech, every.warnings)
    assert classifier.predict_batch([CLIPS[1]], labels=SOME) == [some]
    whole, part = classifier.timeline(CLIPS[1]), classifier.timeline(CLIPS[1], labels=SOME)
    assert [s.probabilities for s in part] == [pytest.approx(shared(s.probabilities)) for s in whole]
    assert part.to_csv().splitlines()[0] == "file,start,end,label,score,anger,neutral,speech"
    given = classifier.timeline(CLIPS[1], segments=[(0.0, 1.5, "A")], labels=SOME, threshold=1.0)
    assert list(given.speakers()[0].probabilities) == ["anger", "neutral"]
    assert given.speakers()[0].label is None
    nobody = classifier.predict(np.zeros(32_000), sampling_rate=16_000, labels=SOME, threshold=0.3)
    assert (nobody.label, nobody.score, nobody.probabilities) == (None, 0.0, {"anger": 0.0, "neutral": 0.0})
    assert [w for w in nobody.warnings if "unsure" in w] == []


def test_what_is_below_the_threshold_has_no_label(classifier: EmotionClassifier) -> None:
    sure = classifier.predict(CLIPS[1])
    at = classifier.predict(CLIPS[1], threshold=sure.score)
    above = classifier.predict(CLIPS[1], threshold=min(1.0, sure.score + 1e-6))
    assert at.label == sure.label
    assert (above.label, above.score, above.probabilities) == (None, sure.score, sure.probabilities)
    assert above.warnings[-1].startswith("unsure: no label reaches the threshold of 0.")
    assert above.to_dict()["label"] is None
    assert "unsure" in repr(above)
    timeline = classifier.timeline(CLIPS[1], threshold=1.0)
    assert {segment.label for segment in timeline} == {None}
    assert timeline.to_webvtt() == "WEBVTT\n"
    assert [row["label"] for row in csv.DictReader(io.StringIO(timeline.to_csv()))] == [""] * len(timeline)


def test_a_stream_says_what_a_timeline_says(classifier: EmotionClassifier) -> None:
    audio, options = speech(9.0), {"labels": SOME, "threshold": 0.8}
    stream = classifier.stream(16_000, **options)
    found = [segment for start in range(0, len(audio), 4000) for segment in stream.push(audio[start : start + 4000])]
    found += stream.gap(0.0) + stream.flush()
    expected = classifier.timeline(audio, sampling_rate=16_000, **options).segments
    assert [(s.start, s.label) for s in found] == [(s.start, s.label) for s in expected]
    assert len(found) > 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": ["anger"]}, r"labels must be at least two, of which one is the answer, not \['anger'\]"),
        ({"labels": "anger"}, "labels must be a list of labels of this model, not 'anger'"),
        ({"labels": ["anger", "joy"]}, "this model has no label 'joy': choose among anger, disgust,"),
        ({"labels": []}, "labels must be at least two"),
        ({"labels": 3}, "labels must be a list"),
        ({"threshold": 1.5}, r"threshold must be a probability from 0 to 1, not 1\.5"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"threshold": "0.5"}, "threshold must be"),
        ({"threshold": True}, "threshold must be"),
    ],
)
def test_choices_that_are_none(classifier: EmotionClassifier, options: dict[str, Any], said: str) -> None:
    for call in (classifier.predict, classifier.timeline):
        with pytest.raises(ConfigError, match=said):
            call(CLIPS[0], **options)


def predict(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, ["predict", "--backend", "onnx", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.stderr


def test_on_the_command_line() -> None:
    row = json.loads(predict(CLIPS[1], "--labels", "anger, neutral", "--threshold", 1))
    assert (row["label"], list(row["probabilities"])) == (None, ["anger", "neutral"])
    table = predict(CLIPS[1], "--threshold", 1, "--format", "table").splitlines()
    assert table[0].split() == ["clip", "emotion", "score", "next", "length", "speech"]
    assert table[1].split()[1] == "(unsure)"
    assert "(unsure)" in predict(CLIPS[1], "--threshold", 1, "--format", "table", "--timeline")
    (cells,) = csv.DictReader(io.StringIO(predict(CLIPS[1], "--labels", "anger,neutral", "--format", "csv")))
    assert [cells["anger"], cells["neutral"]] == [str(value) for value in row["probabilities"].values()]
    assert "disgust" not in cells
    assert "this model has no label 'joy'" in predict(CLIPS[1], "--labels", "anger,joy", status=1)
    assert "Invalid value for '--threshold'" in predict(CLIPS[1], "--threshold", 2, status=2)


def test_only_the_best_labels_of_a_timeline() -> None:
    timeline = [CLIPS[1], "--timeline", "--top-k", 2]
    (full,) = map(json.loads, predict(CLIPS[1], "--timeline").splitlines())
    best = sorted(full["probabilities"], key=full["probabilities"].__getitem__, reverse=True)
    (row,) = map(json.loads, predict(*timeline).splitlines())
    assert list(row["probabilities"]) == best[:2]
    ((segment,),) = (record["segments"] for record in json.loads(predict(*timeline, "--format", "json")))
    assert list(segment["probabilities"]) == best[:2]
    (cells,) = csv.DictReader(io.StringIO(predict(*timeline, "--format", "csv")))
    assert {label for label in full["probabilities"] if cells[label]} == set(best[:2])
    assert float(cells["speech"]) == full["speech"]
    lines = predict(CLIPS[1], "--timeline", "--top-k", 4, "--format", "table").splitlines()
    assert [best[2], best[3]] == [word for word in lines[3].replace(",", "").split() if word in best]
    alone = predict(CLIPS[1], "--timeline", "--top-k", 1, "--format", "table").splitlines()
    assert len(alone[2].split()) == 4
