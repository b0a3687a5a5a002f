from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import CLIPS, speech
from speech_emotion_vit import (
    AudioError,
    ConfigError,
    EmotionClassifier,
    Explanation,
    LogMel,
    ModelConfig,
    SpectrogramViT,
)
from speech_emotion_vit.model.rollout import rollout

if TYPE_CHECKING:
    from pathlib import Path

AUDIO = torch.from_numpy(speech(4.0))
FRONTEND = LogMel()


def slow_rollout(network: SpectrogramViT, image: torch.Tensor) -> np.ndarray:
    """One image, every token by itself, in float64, from the definition."""
    network = network.double()
    tokens = torch.cat((network.cls_token[0], network.patch_embedding(network.patches(image.double()))[0]))
    flow = np.eye(len(tokens))
    for block in network.blocks:
        attention = block.attention
        query, key, _ = attention.qkv(attention.norm(tokens)).split(attention.heads * 64, dim=1)
        mean = np.zeros((len(tokens), len(tokens)))
        for head in range(attention.heads):
            part = slice(64 * head, 64 * head + 64)
            logits = query[:, part] @ key[:, part].T / 8
            mean += logits.softmax(dim=1).numpy() / attention.heads
        with_residual = mean + np.eye(len(tokens))
        flow = with_residual / with_residual.sum(axis=1, keepdims=True) @ flow
        tokens = block(tokens[None])[0]
    weights = flow[0, 1:]
    network.float()
    return weights / weights.sum()


@given(
    samples=st.integers(400, 64_000),
    gap=st.tuples(st.integers(0, 64_000), st.integers(0, 64_000)),
)
@settings(max_examples=16, deadline=None)
@torch.inference_mode()
def test_rollout_is_what_it_is_defined_as(samples: int, gap: tuple[int, int]) -> None:
    torch.manual_seed(1)
    network = SpectrogramViT(ModelConfig.student(6)).eval()
    network.blocks.apply(lambda m: m.weight.data.mul_(3) if isinstance(m, torch.nn.Linear) else None)  # uneven
    waveform = AUDIO[None, :samples].clone()
    waveform[:, min(gap) : max(gap)] = 0
    image = FRONTEND(waveform)
    np.testing.assert_allclose(rollout(network, image)[0], slow_rollout(network, image), atol=1e-6)
    louder = torch.cat((FRONTEND(AUDIO[None, :20_000]), image))  # in a batch
    np.testing.assert_allclose(rollout(network, louder)[1], rollout(network, image)[0], atol=1e-6)


@torch.inference_mode()
def test_rollout_of_the_teacher_and_of_wide_patches() -> None:
    torch.manual_seed(2)
    image = FRONTEND(AUDIO[None, :30_000])
    teacher = SpectrogramViT(ModelConfig.teacher(6)).eval()
    np.testing.assert_allclose(rollout(teacher, image)[0], slow_rollout(teacher, image), atol=1e-6)
    wide = SpectrogramViT(ModelConfig(num_classes=6, patch_height=64, patch_width=4)).eval()
    expected = slow_rollout(wide, image).reshape(2, 32).sum(axis=0).repeat(4) / 4
    np.testing.assert_allclose(rollout(wide, image)[0], expected, atol=1e-6)


def test_arrays_and_axes(hearing_all: EmotionClassifier) -> None:
    classifier = hearing_all
    explanation = classifier.explain(CLIPS[0])
    assert isinstance(explanation, Explanation)
    prediction = classifier.predict(CLIPS[0])
    assert explanation.prediction.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
    assert explanation.prediction.warnings == prediction.warnings
    assert explanation.attention.shape == explanation.times.shape == (128,)
    assert explanation.attention.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(np.diff(explanation.times), 4 / 128, atol=1e-6)
    assert explanation.times[0] == pytest.approx(2 / 128)
    assert (explanation.start, explanation.end) == (0, pytest.approx(prediction.duration))
    assert len(explanation.waveform) == round(prediction.duration * 16_000)
    assert explanation.spectrogram.shape == (128, 128)
    expected = classifier.frontend(torch.from_numpy(explanation.waveform)[None])[0, 0]
    np.testing.assert_allclose(explanation.spectrogram, expected, atol=1e-6)
    assert not explanation.spectrogram[:, explanation.times > explanation.end + 0.05].any()
    assert 0 <= explanation.padding < 1
    assert "most attention at" in repr(explanation)


def test_frequencies_are_where_tones_are_seen(classifier: EmotionClassifier) -> None:
    for frequency in (500.0, 1000.0, 3000.0):
        tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(16_000) / 16_000)
        explanation = classifier.explain(tone, sampling_rate=16_000)
        seen = explanation.frequencies[explanation.spectrogram[:, 16].argmax()]
        assert seen == pytest.approx(frequency, rel=0.05)


def test_of_a_long_recording_the_window_that_argues_most(hearing_all: EmotionClassifier) -> None:
    classifier = hearing_all
    audio = speech(13.0)
    spans = [(start, start + 4) for start in (0, 2, 4, 6, 8, 9)]
    windows = [classifier.predict(audio[a * 16_000 : b * 16_000], sampling_rate=16_000) for a, b in spans]
    label = classifier.predict(audio, sampling_rate=16_000).label
    best = max(range(6), key=lambda index: windows[index].probabilities[label])
    explanation = classifier.explain(audio, sampling_rate=16_000)
    assert (explanation.start, explanation.end) == spans[best]
    assert explanation.prediction.probabilities == pytest.approx(windows[best].probabilities, abs=1e-5)
    np.testing.assert_array_equal(explanation.waveform, audio[spans[best][0] * 16_000 :][:64_000])


def test_a_window_can_be_chosen(classifier: EmotionClassifier) -> None:
    audio = speech(13.0)
    explanation = classifier.explain(audio, sampling_rate=16_000, start=2.5)
    assert (explanation.start, explanation.end) == (2.5, 6.5)
    assert explanation.times[0] == pytest.approx(2.5 + 2 / 128)
    np.testing.assert_array_equal(explanation.waveform, audio[40_000:104_000])
    last = classifier.explain(audio, sampling_rate=16_000, start=12)
    assert (last.start, last.end, len(last.waveform)) == (12, 13, 16_000)
    with pytest.raises(AudioError, match=r"nothing at 13 s, the recording ends after 13\.00 s"):
        classifier.explain(audio, sampling_rate=16_000, start=13)
    for start in (-1, float("nan"), 1e308, "1"):
        with pytest.raises(ConfigError, match="start must be"):
            classifier.explain(audio, sampling_rate=16_000, start=start)  # type: ignore[arg-type]


def test_the_picture_is_whole_and_not_blank(classifier: EmotionClassifier, tmp_path: Path) -> None:
    import matplotlib.image

    explanation = classifier.explain(CLIPS[1])
    wave, image, attention, scale = explanation.plot().axes
    assert scale.get_ylabel() == "dB below the loudest"
    assert scale.get_ylim() == (-80, 0)
    assert attention.get_xlabel() == "minutes:seconds"
    assert attention.get_xlim() == (explanation.start, explanation.end)
    assert [label.get_text() for label in image.get_yticklabels()] == ["250", "500", "1000", "2000", "4000"]
    assert len(wave.get_lines()[0].get_xdata()) == len(explanation.waveform)
    explanation.save(tmp_path / "picture.png")
    pixels = matplotlib.image.imread(tmp_path / "picture.png")
    assert pixels.shape[:2] == (900, 1500)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100
    with pytest.raises(ConfigError, match=r"picture\.bmp: a picture is \.png, \.svg or \.pdf"):
        explanation.save(tmp_path / "picture.bmp")
    with pytest.raises(ConfigError, match="cannot be written"):
        explanation.save(tmp_path / "nowhere" / "picture.png")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_silence_can_be_drawn(classifier: EmotionClassifier, tmp_path: Path) -> None:
    explanation = classifier.explain(np.zeros(8000, np.float32), sampling_rate=16_000)
    assert np.isfinite(explanation.attention).all()
    explanation.save(tmp_path / "silence.svg")
    assert (tmp_path / "silence.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("samples", [1, 240, 400])
def test_audio_of_less_than_half_a_column_can_be_drawn(
    classifier: EmotionClassifier, tmp_path: Path, samples: int
) -> None:
    explanation = classifier.explain(AUDIO[16_000 : 16_000 + samples].numpy(), sampling_rate=16_000)
    assert explanation.end == samples / 16_000
    assert explanation.padding == pytest.approx(1 - explanation.attention[0], abs=1e-5)
    (drawn,) = explanation.plot().axes[2].patches
    np.testing.assert_allclose(drawn.get_data().values, explanation.attention[:1] * 128)
    np.testing.assert_allclose(drawn.get_data().edges, [0, 4 / 128], atol=1e-6)
    explanation.save(tmp_path / "short.png")
    tail = classifier.explain(CLIPS[0], start=1.79)
    assert tail.end - tail.start < 4 / 128 / 2
    tail.save(tmp_path / "tail.svg")


def test_dollars_in_labels_are_drawn_as_they_are(classifier: EmotionClassifier, tmp_path: Path) -> None:
    explanation = classifier.explain(CLIPS[0])
    named = {"$x_$": 0.66, "b": 0.05, "c": 0.05, "$\\frac$": 0.2, "e": 0.02, "f": 0.02}
    prediction = dataclasses.replace(explanation.prediction, probabilities=named)
    renamed = dataclasses.replace(explanation, prediction=prediction)
    renamed.save(tmp_path / "picture.png")
    above, below = renamed.plot().get_suptitle().splitlines()
    assert above.startswith("$x_$ 66%, $\\frac$ 20%, ")
    assert below.startswith(f"{CLIPS[0].name}, crema-d-paper, 0:0")


def test_the_command_line_draws(tmp_path: Path) -> None:
    duration = soundfile.info(CLIPS[1]).duration
    command = [sys.executable, "-m", "speech_emotion_vit", "explain"]
    picture = tmp_path / "picture.png"
    result = subprocess.run([*command, str(CLIPS[1]), "-o", str(picture)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{picture}: ")
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = subprocess.run(
        [*command, str(CLIPS[1]), "--start", "60", "-o", str(picture)], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"Error: {CLIPS[1]}: nothing at 60 s, the recording ends after {duration:.2f} s"
    ]
