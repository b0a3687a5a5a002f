from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from helpers import speech
from speech_emotion_vit.errors import IntegrityError, WeightsError
from speech_emotion_vit.training.fit import teacher
from speech_emotion_vit.training.fit.teacher import SpeechEncoder, digest_of, read_teacher


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    """The reference, with random weights: two blocks tell as much as six."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    config = WhisperConfig(d_model=512, encoder_layers=2, encoder_attention_heads=8, encoder_ffn_dim=2048)
    reference: torch.nn.Module = WhisperEncoder(config).eval()
    return reference


def whole(reference: torch.nn.Module) -> dict[str, Tensor]:
    """Tensors of all six blocks in half precision, the last four being the first again."""
    tensors = {name: tensor.half() for name, tensor in reference.state_dict().items()}
    for layer in range(2, teacher.DEPTH):
        again = {name: tensor for name, tensor in tensors.items() if name.startswith("layers.0.")}
        tensors |= {name.replace("layers.0.", f"layers.{layer}."): tensor.clone() for name, tensor in again.items()}
    return tensors


def write(folder: Path, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    named = {f"model.encoder.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named | {"model.decoder.layer_norm.bias": torch.ones(512)}, folder / "model.safetensors")
    return folder


def test_spectrograms_are_those_of_the_reference() -> None:
    from transformers import WhisperFeatureExtractor

    clip = np.concatenate((speech(2.5), np.zeros(12_000, np.float32)))
    expected = WhisperFeatureExtractor(feature_size=80)(clip, sampling_rate=16_000, return_tensors="pt").input_features
    found = SpeechEncoder({}, layers=0).spectrogram(torch.from_numpy(clip)[None])
    assert found.shape == (1, 80, len(clip) // 160)
    # The reference mirrors the clip at its start, where here is nothing: two frames hear that.
    torch.testing.assert_close(found[..., 2:], expected[..., 2 : found.shape[2]], rtol=0, atol=1e-4)


def test_the_encoder_is_the_reference(encoder: torch.nn.Module) -> None:
    spectrogram = torch.randn(1, 80, 3000)
    with torch.no_grad():
        expected = encoder(spectrogram, output_hidden_states=True).hidden_states[:2]
    found = SpeechEncoder(encoder.state_dict(), layers=2).forward(spectrogram)
    assert len(found) == 3
    for mine, theirs in zip(found, expected, strict=False):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_token_is_heard_for_every_20_ms_of_the_layers_that_are_asked_for(encoder: torch.nn.Module) -> None:
    listener = SpeechEncoder(encoder.state_dict(), layers=2)
    clip = torch.from_numpy(speech(1.0))[None]
    heard = listener.listen(clip, (2, 0))
    assert heard.shape == (1, 2, 50, 512)
    outputs = listener.forward(listener.spectrogram(clip))
    assert torch.equal(heard[0, 0], outputs[2][0])
    assert torch.equal(heard[0, 1], outputs[0][0])
    half = SpeechEncoder(encoder.state_dict(), layers=2, dtype=torch.bfloat16).listen(clip, (2, 0))
    assert half.dtype == torch.float32
    assert (half - heard).abs().mean() < 0.02 * heard.abs().mean()


def test_nothing_trains_the_encoder(encoder: torch.nn.Module) -> None:
    listener = SpeechEncoder(encoder.state_dict(), layers=1)
    stage = torch.nn.Linear(1, 1)
    stage.teacher = listener  # type: ignore[assignment]
    stage.train().requires_grad_(True)
    assert len(list(stage.parameters())) == 2
    assert not listener.listen(torch.ones(1, 1600, requires_grad=True), (1,)).requires_grad


def test_a_folder_is_read_strictly(encoder: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = whole(encoder)
    monkeypatch.setattr(teacher, "ENCODER_SHA256", digest_of(tensors))
    read = read_teacher(write(tmp_path / "half", tensors))
    assert read.keys() == tensors.keys()
    assert all(tensor.dtype == torch.float32 for tensor in read.values())
    full = read_teacher(write(tmp_path / "full", {name: tensor.float() for name, tensor in tensors.items()}))
    assert all(torch.equal(full[name], read[name]) for name in read)

    other = tensors | {"conv1.bias": tensors["conv1.bias"] + 1}
    with pytest.raises(IntegrityError, match=r"its encoder has SHA-256 .*, that of openai/whisper-base has"):
        read_teacher(write(tmp_path / "other", other))
    for change, complaint in (
        ({"conv3.bias": torch.ones(1)}, r"1 unexpected: conv3\.bias"),
        ({"conv1.bias": torch.ones(3)}, r"1 wrongly shaped: conv1\.bias \[3\] instead of \[512\]"),
        ({"conv1.bias": torch.full((512,), torch.nan)}, r"1 tensors hold NaN"),
    ):
        with pytest.raises(WeightsError, match=complaint):
            read_teacher(write(tmp_path / "wrong", tensors | change))
    del tensors["layers.5.fc1.bias"]
    with pytest.raises(WeightsError, match=r"1 missing: layers\.5\.fc1\.bias"):
        read_teacher(write(tmp_path / "less", tensors))


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no model\.safetensors is here: give the folder of a copy of openai/"):
        read_teacher(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(WeightsError, match="damaged safetensors file"):
        read_teacher(tmp_path)
