"""Tensors resampled by torchaudio: what comes out is what soxr makes of them, and where it happens is the device."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import soundfile
import torch

from helpers import encoded, speech, tone
from speech_emotion_vit import AudioError
from speech_emotion_vit.audio import on_device
from speech_emotion_vit.audio.reader import AudioReader

with_torchaudio = pytest.mark.torchaudio  # all but one


@pytest.fixture
def calls(monkeypatch):
    """What torchaudio is asked to resample."""
    import torchaudio

    forward, seen = torchaudio.transforms.Resample.forward, []

    def spy(self, samples):
        assert self.kernel.device == samples.device
        seen.append((tuple(samples.shape), samples.device.type))
        return forward(self, samples)

    monkeypatch.setattr(torchaudio.transforms.Resample, "forward", spy)
    return seen


def read(source, rate, target=16_000, **options):
    reader = AudioReader(source, sampling_rate=rate, target_rate=target, **options)
    return np.concatenate(list(reader)), reader


@with_torchaudio
@pytest.mark.parametrize(
    ("rate", "target"), [(48_000, 16_000), (44_100, 16_000), (22_050, 16_000), (8_000, 16_000), (16_000, 24_000)]
)
def test_it_agrees_with_soxr(calls, rate, target):
    seconds = 2.3
    time = np.arange(round(seconds * rate)) / rate
    samples = sum(np.sin(2 * np.pi * f * time) for f in (60, 440, 1000, 3000)).astype(np.float32) / 5
    ours, reader = read(torch.from_numpy(samples), rate, target)
    theirs, other = read(samples, rate, target)
    assert calls == [((len(samples),), "cpu")]
    assert abs(len(ours) - len(theirs)) <= 1
    inside = slice(200, len(theirs) - 200)  # at the ends there is nothing to look at
    assert np.abs(ours[inside] - theirs[inside]).max() < 1e-3
    assert (reader.duration, reader.warnings) == (other.duration, other.warnings)


@with_torchaudio
def test_what_is_above_the_new_band_is_gone(calls):
    ours, _ = read(torch.from_numpy(tone(12_000, 1.0, 48_000)), 48_000)
    assert np.abs(ours[200:-200]).max() < 1e-4
    assert len(calls) == 1


@with_torchaudio
@pytest.mark.parametrize("kind", ["float64", "float16", "uint8", "int8", "int16", "int32"])
@pytest.mark.parametrize("channel", ["mix", 1])
@pytest.mark.parametrize("turned", [False, True])
def test_layouts_and_types_are_as_without_it(calls, kind, channel, turned):
    waves = np.stack([tone(440, 1.0, 48_000), 0.3 * tone(1_000, 1.0, 48_000)])
    if kind == "uint8":
        samples = (waves * 127 + 128).astype(kind)
    elif kind.startswith("int"):
        samples = (waves * 2.0 ** (8 * np.dtype(kind).itemsize - 1)).astype(kind)
    else:
        samples = waves.astype(kind)
    samples = np.ascontiguousarray(samples.T) if turned else samples
    ours, _ = read(torch.from_numpy(samples), 48_000, channel=channel)
    theirs, _ = read(samples, 48_000, channel=channel)
    assert len(calls) == 1
    assert np.abs(ours - theirs)[200:-200].max() < 1e-3


@with_torchaudio
def test_warnings_and_refusals_are_of_what_came_in(calls):
    loud = np.clip(3 * tone(440, 1.0, 48_000), -1, 1) + np.float32(0.2)
    ours, theirs = read(torch.from_numpy(loud), 48_000)[1], read(loud, 48_000)[1]
    assert ours.warnings == theirs.warnings
    assert len(ours.warnings) == 2
    broken = torch.from_numpy(tone(440, 2.0, 48_000))
    broken[50_000] = torch.nan
    reader, blocks = AudioReader(broken, sampling_rate=48_000), []
    with pytest.raises(AudioError, match="sample 50000 is NaN"):
        blocks.extend(reader)
    before = np.concatenate(blocks)  # what came before it is good
    assert 16_000 < len(before) < 50_000 / 3
    expected, _ = read(tone(440, 2.0, 48_000), 48_000)
    assert np.abs(before - expected[: len(before)])[200:].max() < 1e-3


@with_torchaudio
def test_an_odd_rate_and_arrays_are_for_soxr(calls):
    read(torch.from_numpy(tone(440, 0.5, 44_101)), 44_101)
    read(tone(440, 0.5, 48_000), 48_000)
    read(torch.from_numpy(tone(440, 0.5)), 16_000)
    assert calls == []


@with_torchaudio
def test_long_tensors_come_in_blocks(calls):
    samples = np.resize(speech(20.0), 48_000 * 60)
    blocks = list(AudioReader(torch.from_numpy(samples), sampling_rate=48_000))
    assert len(blocks) > 10
    assert sum(map(len, blocks)) == 16_000 * 60


@with_torchaudio
def test_what_torchaudio_loads_is_answered(calls, tmp_path, classifier):
    import torchaudio

    path = tmp_path / "clip.wav"
    path.write_bytes(encoded(np.repeat(speech(2.4)[:, None], 2, axis=1), 48_000))
    soundfile.info(path)
    pair = torchaudio.load(str(path))
    assert tuple(pair[0].shape) == (2, 38_400)
    ours, theirs = classifier.predict(pair), classifier.predict(path)
    assert ours.probabilities == pytest.approx(theirs.probabilities, abs=0.02)
    assert ours.duration == theirs.duration
    assert len(calls) == 1


def test_one_made_for_another_torch_is_as_good_as_none(monkeypatch, tmp_path):
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('undefined symbol: _ZN5torch')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    on_device._torchaudio.cache_clear()
    try:
        samples = tone(440, 1.0, 48_000)
        ours, theirs = read(torch.from_numpy(samples), 48_000)[0], read(samples, 48_000)[0]
    finally:
        on_device._torchaudio.cache_clear()
    assert np.array_equal(ours, theirs)
