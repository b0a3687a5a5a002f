from __future__ import annotations

import io
import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch

from helpers import CLIPS, ROOT, speech, tone
from speech_emotion_vit import (
    AudioError,
    ConfigError,
    EmotionClassifier,
    Prediction,
    SpeechEmotionError,
    WeightsError,
)

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")


def assert_same(one: Prediction, other: Prediction) -> None:
    assert list(one.probabilities) == list(other.probabilities)
    np.testing.assert_allclose(list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-5)


def long_audio(seconds: float) -> np.ndarray:
    """The six example clips in a row, as often as needed."""
    clips = np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in CLIPS])
    return np.resize(clips, round(seconds * 16_000))


def test_probabilities_are_in_label_order_and_sum_to_one(classifier: EmotionClassifier) -> None:
    prediction = classifier.predict(CLIPS[0])
    assert tuple(prediction.probabilities) == classifier.labels == LABELS
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert prediction.score == max(prediction.probabilities.values())
    assert prediction.duration == pytest.approx(soundfile.info(CLIPS[0]).duration)
    assert prediction.model == classifier.name
    assert prediction.warnings == ("clipped (0.4% of samples)",)  # the recording is


def test_every_kind_of_input_gives_the_same_answer(classifier: EmotionClassifier) -> None:
    clip = CLIPS[0]
    samples, rate = soundfile.read(clip, dtype="float32")
    expected = classifier.predict(clip)
    for source in (str(clip), clip.read_bytes(), io.BytesIO(clip.read_bytes())):
        assert_same(classifier.predict(source), expected)
    for array in (
        samples,
        samples.astype(np.float64),
        np.stack((samples, samples)),
        torch.from_numpy(samples),
        torch.from_numpy(samples).expand(2, -1),
        np.round(samples * 32_768).astype(np.int16),
    ):
        assert_same(classifier.predict(array, sampling_rate=rate), expected)


def test_a_batch_is_the_same_as_one_by_one(classifier: EmotionClassifier) -> None:
    singles = [classifier.predict(clip) for clip in CLIPS]
    for batch_size in (1, 4, 64):
        for single, batched in zip(singles, classifier.predict_batch(CLIPS, batch_size=batch_size), strict=True):
            assert_same(single, batched)
            assert (single.duration, single.warnings) == (batched.duration, batched.warnings)


def test_a_long_clip_is_the_mean_of_its_windows(hearing_all: EmotionClassifier) -> None:
    classifier = hearing_all
    audio = long_audio(9.5)
    starts = [0, 32_000, 64_000, len(audio) - 64_000]
    parts = classifier.predict_batch([audio[s : s + 64_000] for s in starts], sampling_rate=16_000)
    whole = classifier.predict(audio, sampling_rate=16_000)
    mean = np.mean([list(part.probabilities.values()) for part in parts], axis=0)
    np.testing.assert_allclose(list(whole.probabilities.values()), mean, atol=1e-5)
    assert whole.duration == 9.5


def test_long_and_short_clips_share_batches(classifier: EmotionClassifier) -> None:
    audios = [long_audio(seconds) for seconds in (1.0, 21.0, 4.0, 0.5, 8.0)]
    for audio, batched in zip(
        audios, classifier.predict_batch(audios, sampling_rate=16_000, batch_size=3), strict=True
    ):
        assert_same(classifier.predict(audio, sampling_rate=16_000), batched)


def test_zero_padding_up_to_the_window_changes_nothing(classifier: EmotionClassifier) -> None:
    audio = long_audio(2.0)
    padded = np.concatenate((audio, np.zeros(32_000, np.float32)))
    assert_same(classifier.predict(audio, sampling_rate=16_000), classifier.predict(padded, sampling_rate=16_000))


def test_another_rate_hardly_changes_the_answer(classifier: EmotionClassifier) -> None:
    import soxr

    audio = long_audio(2.0)
    upsampled = soxr.resample(audio, 16_000, 44_100)
    one, other = (
        classifier.predict_batch([audio], sampling_rate=16_000)[0],
        classifier.predict(upsampled, sampling_rate=44_100),
    )
    assert max(abs(one.probabilities[label] - other.probabilities[label]) for label in LABELS) < 0.05


def test_embeddings_are_what_the_head_reads(classifier: EmotionClassifier) -> None:
    embedding = classifier.embed(CLIPS[0])
    assert embedding.shape == (256,)
    assert embedding.dtype == np.float32
    logits = classifier.network.head(torch.from_numpy(embedding)) / classifier.config.temperature
    expected = list(classifier.predict(CLIPS[0]).probabilities.values())
    np.testing.assert_allclose(logits.softmax(0).numpy(), expected, atol=1e-5)
    samples, rate = soundfile.read(CLIPS[0], dtype="float32")
    np.testing.assert_allclose(classifier.embed(samples, sampling_rate=rate), embedding, atol=1e-5)


def test_silence_gets_an_answer_where_all_is_heard(hearing_all: EmotionClassifier) -> None:
    prediction = hearing_all.predict(np.zeros(16_000, np.float32), sampling_rate=16_000)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert (prediction.speech, prediction.warnings) == (1.0, ())


def test_a_failure_is_raised_or_stands_in_its_place(classifier: EmotionClassifier, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        classifier.predict_batch([CLIPS[0], bad, CLIPS[1]])
    first, failure, last = classifier.predict_batch([CLIPS[0], bad, CLIPS[1]], errors="return")
    assert isinstance(failure, AudioError)
    assert isinstance(first, Prediction)
    assert isinstance(last, Prediction)
    assert_same(first, classifier.predict(CLIPS[0]))
    assert_same(last, classifier.predict(CLIPS[1]))


def test_a_clip_that_fails_late_does_not_disturb_the_others(classifier: EmotionClassifier) -> None:
    broken = long_audio(30.0)
    broken[-10] = np.nan
    first, failure, last = classifier.predict_batch(
        [long_audio(5.0), broken, long_audio(3.0)], sampling_rate=16_000, batch_size=4, errors="return"
    )
    assert isinstance(failure, AudioError)
    assert isinstance(first, Prediction)
    assert isinstance(last, Prediction)
    assert_same(first, classifier.predict(long_audio(5.0), sampling_rate=16_000))
    assert_same(last, classifier.predict(long_audio(3.0), sampling_rate=16_000))


def test_an_empty_batch_is_an_empty_list(classifier: EmotionClassifier) -> None:
    assert classifier.predict_batch([]) == []


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_bad_batch_sizes_are_refused(classifier: EmotionClassifier, batch_size: object) -> None:
    with pytest.raises(ConfigError, match="batch_size must be a whole number"):
        classifier.predict_batch(CLIPS, batch_size=batch_size)  # type: ignore[call-overload]


def test_the_truncating_protocol_sees_the_first_window_only(tmp_path: Path, hearing_all: EmotionClassifier) -> None:
    import dataclasses

    from speech_emotion_vit.weights.checkpoint import save_folder

    classifier = hearing_all
    frontend = dataclasses.replace(classifier.config.frontend, long_clips="truncate")
    save_folder(tmp_path, classifier.network, dataclasses.replace(classifier.config, frontend=frontend))
    audio = long_audio(12.0)
    truncated = EmotionClassifier(tmp_path, vad_filter=False).predict(audio, sampling_rate=16_000)
    assert_same(truncated, classifier.predict(audio[:64_000], sampling_rate=16_000))
    assert truncated.duration == 12.0


def test_sixteen_threads_give_the_numbers_of_one(classifier: EmotionClassifier) -> None:
    expected = classifier.predict_batch(CLIPS)
    results: dict[int, list[Prediction]] = {}

    def work(index: int) -> None:
        results[index] = [classifier.predict(clip) for clip in CLIPS]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    for predictions in results.values():
        for one, other in zip(expected, predictions, strict=True):
            assert_same(one, other)


def test_the_constructor_says_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used"):
        EmotionClassifier(device="cuda:99")
    with pytest.raises(ConfigError, match="device 'toaster' cannot be used"):
        EmotionClassifier(device="toaster")
    with pytest.raises(ConfigError, match="device 'meta' cannot be used"):
        EmotionClassifier(device="meta")
    with pytest.raises(WeightsError, match="crema-d"):
        EmotionClassifier("no-such-model")


def test_the_default_is_large_and_from_pretrained_is_the_constructor() -> None:
    default, named = EmotionClassifier(), EmotionClassifier.from_pretrained("base", device="cpu")
    assert named.name == default.name
    assert_same(named.predict(CLIPS[2]), default.predict(CLIPS[2]))
    assert "base" in repr(named)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    cpu, cuda = EmotionClassifier(device="cpu"), EmotionClassifier(device="cuda")
    for one, other in zip(cpu.predict_batch(CLIPS), cuda.predict_batch(CLIPS), strict=True):
        values = (list(one.probabilities.values()), list(other.probabilities.values()))
        np.testing.assert_allclose(*values, atol=1e-3)
    tensor = torch.from_numpy(tone(300, 1.0)).cuda()
    assert_same(cuda.predict(tensor, sampling_rate=16_000), cuda.predict(tensor.cpu(), sampling_rate=16_000))


def test_a_prediction_ranks_prints_and_travels() -> None:
    prediction = Prediction({"a": 0.2, "b": 0.5, "c": 0.3}, duration=1.25, speech=0.5, model="m@1", warnings=("noisy",))
    assert (prediction.label, prediction.score) == ("b", 0.5)
    assert prediction.top(2) == prediction.top(np.int64(2)) == [("b", 0.5), ("c", 0.3)]  # type: ignore[arg-type]
    assert prediction.to_dict() == {
        "label": "b",
        "score": 0.5,
        "probabilities": {"a": 0.2, "b": 0.5, "c": 0.3},
        "duration": 1.25,
        "speech": 0.5,
        "model": "m@1",
        "warnings": ["noisy"],
    }
    assert repr(prediction) == "<Prediction b 0.50, c 0.30, a 0.20 (1.25 s, m@1, warnings: noisy)>"
    assert pickle.loads(pickle.dumps(prediction)) == prediction
    with pytest.raises(AttributeError):
        prediction.duration = 2.0  # type: ignore[misc]
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        prediction.top(0)
    with pytest.raises(ConfigError, match=r"whole k of at least 1, not 1\.5"):
        prediction.top(1.5)  # type: ignore[arg-type]


def test_in_channels_that_cancel_each_other_nobody_speaks(classifier: EmotionClassifier) -> None:
    stereo = 0.5 * np.stack((speech(1.0), -speech(1.0)))
    assert classifier.predict(stereo, sampling_rate=16_000).warnings == ("no speech",)


@pytest.mark.parametrize("model", [Path("a\0.safetensors"), Path("~nobody-of-this-name/model")])
def test_a_path_that_cannot_be_one_is_refused(model: Path) -> None:
    with pytest.raises(SpeechEmotionError):
        EmotionClassifier(model)


def test_a_device_without_that_many_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        EmotionClassifier(device=10**30)  # type: ignore[arg-type]


@pytest.mark.parametrize("audio", [np.ndarray, torch.Tensor])
def test_what_has_no_shape_is_refused_as_audio(classifier: EmotionClassifier, audio: object) -> None:
    with pytest.raises(AudioError):
        classifier.predict(audio, sampling_rate=16_000)  # type: ignore[arg-type]


def test_golden_probabilities_of_the_bundled_clips() -> None:
    """Stored by ``python tests/make_golden.py``; 1e-3 allows for other processors and libraries."""
    import json

    golden = json.loads((ROOT / "tests" / "data" / "golden.json").read_text())["models"]
    assert next(iter(golden)) == EmotionClassifier().name
    assert len(golden) == 4
    for name, clips in golden.items():
        model = EmotionClassifier(name.partition("@")[0], vad_filter=False)
        assert model.name == name
        assert len(clips) == len(CLIPS)
        for clip in CLIPS:
            assert model.predict(clip).probabilities == pytest.approx(clips[clip.name], abs=1e-3)


def test_the_default_is_right_on_most_example_clips() -> None:
    classifier = EmotionClassifier()
    assert sum(classifier.predict(clip).label == clip.stem for clip in CLIPS) >= 4  # of six; guessing gets one
