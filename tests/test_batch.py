from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import CLIPS, speech
from speech_emotion_vit import AudioError, ConfigError, EmotionClassifier, Prediction

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000


def assert_same(one: Prediction | AudioError, other: Prediction) -> None:
    assert isinstance(one, Prediction)
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert (one.duration, one.warnings, one.model) == (other.duration, other.warnings, other.model)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of many lengths, from 20 ms to 70 s."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = np.random.default_rng(1).permutation([0.02, 0.1, 0.5, 70.0, *np.linspace(0.7, 5.0, 36)])
    paths = [folder / f"{index:02}.wav" for index in range(len(lengths))]
    for path, seconds in zip(paths, lengths, strict=True):
        soundfile.write(path, speech(seconds), RATE)
    return paths


@given(
    lengths=st.lists(st.integers(1, 6 * RATE), min_size=1, max_size=12),
    batch_size=st.integers(1, 9),
)
@settings(max_examples=15, deadline=None)
def test_mixed_lengths_give_single_predictions(
    classifier: EmotionClassifier, lengths: list[int], batch_size: int
) -> None:
    audio = speech(6.0)
    clips = [np.roll(audio, 3000 * index)[:length] for index, length in enumerate(lengths)]
    batched = classifier.predict_batch(clips, sampling_rate=RATE, batch_size=batch_size)
    for clip, prediction in zip(clips, batched, strict=True):
        assert_same(prediction, classifier.predict(clip, sampling_rate=RATE))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_files_decoded_by_threads_come_back_in_order(
    classifier: EmotionClassifier, files: list[Path], batch_size: int
) -> None:
    batched = classifier.predict_batch(files, batch_size=batch_size)
    assert [p.duration for p in batched] == [soundfile.info(path).duration for path in files]
    for path, prediction in zip(files[::5], batched[::5], strict=True):
        assert_same(prediction, classifier.predict(path))


def test_a_failure_is_a_record_in_its_place(classifier: EmotionClassifier, files: list[Path], tmp_path: Path) -> None:
    bad, gone = tmp_path / "bad.wav", tmp_path / "gone.wav"
    bad.write_bytes(b"no audio")
    mixed = [*files[:7], bad, *files[7:14], gone, *files[14:]]
    results = classifier.predict_batch(mixed, batch_size=3, errors="return")
    failures = {index: result for index, result in enumerate(results) if isinstance(result, AudioError)}
    assert list(failures) == [7, 15]
    assert "bad.wav: is not audio" in str(failures[7])
    assert "gone.wav: no such file" in str(failures[15])
    assert_same(results[16], classifier.predict(files[14]))
    with pytest.raises(AudioError, match=r"bad\.wav"):
        classifier.predict_batch(mixed)


def test_what_the_caller_reuses_is_read_at_once(classifier: EmotionClassifier) -> None:
    """A generator may close its file, or fill its array anew, as soon as the next clip is asked for."""

    def clips() -> Iterator[io.BytesIO | np.ndarray]:
        buffer = np.zeros(2 * RATE, np.float32)
        for path in CLIPS[:3]:
            with path.open("rb") as file:
                yield io.BufferedReader(file.raw)  # type: ignore[misc]
            buffer[:] = soundfile.read(path, frames=2 * RATE, fill_value=0, dtype="float32")[0]
            yield buffer

    from_files, from_arrays = [], []
    for index, path in enumerate(clips()):
        (from_arrays if index % 2 else from_files).append(
            classifier.predict(path, sampling_rate=RATE if index % 2 else None)
        )

    def files_only() -> Iterator[object]:
        yield from (clip for index, clip in enumerate(clips()) if index % 2 == 0)

    def arrays_only() -> Iterator[object]:
        yield from (clip for index, clip in enumerate(clips()) if index % 2)

    for batched, expected in (
        (classifier.predict_batch(files_only()), from_files),
        (classifier.predict_batch(arrays_only(), sampling_rate=RATE), from_arrays),
    ):
        for one, other in zip(batched, expected, strict=True):
            assert_same(one, other)


def test_memory_and_threads_are_bounded(classifier: EmotionClassifier, files: list[Path]) -> None:
    """Thousands of clips are not opened before the first result, and leaving early leaves no thread behind."""
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield CLIPS[taken % 6]

    before = threading.active_count()
    results = classifier.iter_predictions(endless(), batch_size=8)
    first = [next(results) for _ in range(20)]
    assert taken <= 20 + 4 * 8 + 16 + 1
    assert threading.active_count() > before  # the threads that decode
    results.close()
    assert threading.active_count() == before
    assert_same(first[0], classifier.predict(CLIPS[1]))


def test_nothing_is_decoded_far_ahead_of_a_long_file(classifier: EmotionClassifier, tmp_path: Path) -> None:
    import tracemalloc

    long, other = tmp_path / "long.wav", tmp_path / "other.wav"
    soundfile.write(long, speech(400.0), RATE)  # 13 portions of 16 windows
    soundfile.write(other, speech(32.0), RATE)  # one portion, 4 MB
    tracemalloc.start()
    predictions = classifier.predict_batch([long, *[other] * 40], batch_size=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [prediction.duration for prediction in predictions] == [400.0, *[32.0] * 40]
    assert peak < 30 * 4.1e6  # 16 portions, what decodes them and finds the speech, and 16 windows that wait


def test_files_and_arrays_come_together(classifier: EmotionClassifier) -> None:
    audio = speech(1.0)
    with open(CLIPS[1], "rb") as file:
        found = classifier.predict_batch([CLIPS[0], audio, file, str(CLIPS[2])], sampling_rate=RATE)
    expected = [classifier.predict(CLIPS[0]), classifier.predict(audio, sampling_rate=RATE)]
    expected += [classifier.predict(CLIPS[1]), classifier.predict(CLIPS[2])]
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("one", ["clip.wav", CLIPS[0], b"RIFF", io.BytesIO(b"RIFF"), np.zeros(8), torch.zeros(8)])
def test_a_single_piece_is_not_a_batch(classifier: EmotionClassifier, one: object) -> None:
    with pytest.raises(ConfigError, match="is one piece of audio: pass a list of such, or call predict"):
        classifier.predict_batch(one)  # type: ignore[call-overload]


def test_a_long_file_among_short_ones_is_decoded_in_portions(classifier: EmotionClassifier, tmp_path: Path) -> None:
    import tracemalloc

    long = tmp_path / "long.flac"
    with soundfile.SoundFile(long, "w", RATE, 1) as file:
        for _ in range(8):
            file.write(speech(60.0))
    expected = classifier.predict(speech(60.0), sampling_rate=RATE)
    tracemalloc.start()
    short, prediction, other = classifier.predict_batch([CLIPS[0], long, CLIPS[1]], batch_size=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6  # its windows alone are 61 MB; to find the speech, up to a minute is kept
    assert prediction.duration == 480
    assert prediction.probabilities == pytest.approx(expected.probabilities, abs=0.1)  # much the same windows
    assert_same(short, classifier.predict(CLIPS[0]))
    assert_same(other, classifier.predict(CLIPS[1]))
