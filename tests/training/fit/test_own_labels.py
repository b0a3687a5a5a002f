"""Labels of one's own, from clips to a model that is saved, loaded and scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard

from helpers import CLIPS
from speech_emotion_vit import AudioError, ConfigError, DatasetError, EmotionClassifier, fit_head
from speech_emotion_vit.cli import main
from speech_emotion_vit.weights.manifest import load_manifest

RATE = 16_000


def recordings() -> tuple[list[np.ndarray], list[str], list[str]]:
    """Six voices, each dull and slow, whole and without its beginning; one is longer than a window."""
    clips, labels, speakers = [], [], []
    for clip in CLIPS:
        samples, _ = soundfile.read(clip, dtype="float32")
        dull = np.convolve(samples, np.full(8, 1 / 8), "same").astype(np.float32)
        slow = np.interp(np.arange(0, len(samples), 0.75), np.arange(len(samples)), samples).astype(np.float32)
        for label, played in (("dull", dull), ("slow", slow)):
            clips += [played, played[len(played) // 4 :]]
            labels += [label] * 2
            speakers += [clip.stem] * 2
    clips[0] = np.tile(clips[0], 3)
    return clips, labels, speakers


@pytest.fixture(scope="module")
def model() -> EmotionClassifier:
    clips, labels, speakers = recordings()
    state = torch.random.get_rng_state()
    fitted = fit_head(clips, labels, speakers, sampling_rate=RATE)
    assert torch.equal(torch.random.get_rng_state(), state)
    return fitted


def test_new_labels_are_told_in_voices_that_were_left_out(model: EmotionClassifier) -> None:
    clips, labels, _ = recordings()
    assert model.labels == ("dull", "slow")
    assert [each.label for each in model.predict_batch(clips, sampling_rate=RATE)] == labels
    found = model.evaluation
    assert found is not None
    assert (found.clips, found.speakers, found.left_out, found.notes) == (24, 6, "speakers", ())
    assert found.ua > 0.75
    assert found.ua_interval is not None
    assert found.ua_interval[0] < found.ua <= found.ua_interval[1]
    assert np.sum(found.confusion, axis=1).tolist() == [12, 12]
    assert found.recalls == {name: found.confusion[i][i] / 12 for i, name in enumerate(model.labels)}
    assert found.ua == pytest.approx(np.mean(list(found.recalls.values())))
    assert 0 <= found.ece < 0.4
    assert "24 clips of 6 speakers, speakers left out in turn" in str(found)


def test_a_saved_model_answers_the_same_and_its_card_says_how_it_scores(
    model: EmotionClassifier, tmp_path: Path
) -> None:
    clips, labels, speakers = recordings()
    again = EmotionClassifier(model.save(tmp_path / "mine"))
    for clip in clips[:3]:
        expected = model.predict(clip, sampling_rate=RATE).probabilities
        assert again.predict(clip, sampling_rate=RATE).probabilities == pytest.approx(expected, abs=5e-3)
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "dull, slow" in card
    assert "| own recordings | UA |" in card
    below = ModelCard(card)
    assert (below.data.base_model, below.data.datasets) == ("openai/whisper-base", ["crema-d", "emodb"])
    assert f"## Licence\n\n{load_manifest().get('base').license}." in below.text
    renamed = ["muffled" if label == "dull" else "drawn out" for label in labels]
    other = fit_head(clips, renamed, speakers, sampling_rate=RATE, base=tmp_path / "mine")
    card = (other.save(tmp_path / "other") / "README.md").read_text()
    assert "drawn out, muffled" in card
    assert "dull" not in card
    above = ModelCard(card)  # what the first head stands on, the second stands on, too
    assert above.data.base_model == "openai/whisper-base"
    assert (above.data.license, above.data.datasets) == (below.data.license, below.data.datasets)
    assert "whose card says more of its licence" in above.text


def test_labels_that_mean_nothing_score_like_chance_and_unknown_speakers_are_said() -> None:
    clips, labels, speakers = recordings()
    drawn = np.random.default_rng(5).permutation(labels).tolist()
    found = fit_head(clips, drawn, [*speakers[:-1], None], sampling_rate=RATE).evaluation
    assert found is not None
    assert (found.left_out, found.speakers) == ("clips", 6)
    assert found.ua < 0.7
    assert "the speakers of 1 of 24 clips are unknown, so clips are left out" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": ["a"] * 6}, DatasetError, "all 6 clips are labelled 'a': give clips of at least two labels"),
        ({"labels": ["a"] * 5 + ["b"]}, DatasetError, r"labels with fewer than 3 clips: b \(1\): add clips"),
        ({"labels": ["a"] * 5}, DatasetError, "6 clips and 5 labels: give one of each for every clip"),
        ({"speakers": ["x"]}, DatasetError, "1 speakers and 6 labels"),
        ({"labels": "abcabc"}, DatasetError, "labels must be one text for every clip, not 'abcabc'"),
        ({"labels": [1, 2] * 3}, DatasetError, "labels must be one text for every clip, not 1"),
        ({"labels": ["score", "b"] * 3}, ConfigError, "rename"),
        ({"clips": "clip.wav"}, ConfigError, "is one piece of audio: pass a list"),
        ({"errors": "return"}, ConfigError, "errors must be 'raise' or 'skip', not 'return'"),
        ({"clips": [], "labels": []}, DatasetError, "there are no clips"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    options: dict[str, Any] = {"clips": [CLIPS[0]] * 6, "labels": ["a", "b"] * 3, "base": "crema-d-paper"}
    with pytest.raises(error, match=message):
        fit_head(**{**options, **change})


def test_the_command_fits_a_folder_and_leaves_out_what_cannot_be_read_if_told_to(tmp_path: Path) -> None:
    for index, (clip, label) in enumerate(zip(*recordings()[:2], strict=True)):
        (tmp_path / "in" / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / label / f"{index}.flac", clip, RATE)
    (tmp_path / "in" / "slow" / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "in" / "notes.txt").touch()
    arguments = ["fit", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 1
    assert "broken.wav" in refused.stderr
    assert "--skip leaves such clips out" in refused.stderr
    assert "Note: 1 file is passed over, not named like audio: 1 .txt\nlabels: dull 12, slow 13\n" in refused.stderr
    result = CliRunner().invoke(main, [*arguments, "--skip"])
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert (printed["clips"], printed["speakers"], printed["left_out"]) == (24, 0, "clips")
    assert printed["ua"] > 0.75
    assert "1 of 25 clips cannot be read and are left out" in printed["notes"][1]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == printed
    assert EmotionClassifier(tmp_path / "out").labels == ("dull", "slow")
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "is not empty: choose another --output" in again.stderr
    broken = [tmp_path / "in" / "slow" / "broken.wav"] * 6
    with pytest.raises(AudioError, match="errors='skip' leaves such clips out"):
        fit_head(broken, ["a", "b"] * 3)
    with pytest.raises(DatasetError, match=r"there are no clips \(6 clips cannot be read\)"):
        fit_head(broken, ["a", "b"] * 3, errors="skip")
