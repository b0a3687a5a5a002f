"""All padding is one token: the collapsed network says what the plain one says, from the waveform to the logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import speech
from speech_emotion_vit import LogMel, ModelConfig, SpectrogramViT

AUDIO = torch.from_numpy(speech(8.0))
FRONTEND = LogMel()


def student(seed: int, **changes: int | str) -> SpectrogramViT:
    torch.manual_seed(seed)
    return SpectrogramViT(ModelConfig(num_classes=6, **changes)).eval()  # type: ignore[arg-type]


@given(
    lengths=st.lists(st.integers(1, 64_000), min_size=1, max_size=4),
    gap=st.tuples(st.integers(0, 64_000), st.integers(0, 64_000)),
    seed=st.integers(0, 9),
    patch_width=st.sampled_from([1, 2, 4]),
    pooling=st.sampled_from(["cls", "statistics"]),
)
@settings(max_examples=25, deadline=None)
@torch.inference_mode()
def test_collapsed_and_plain_logits_are_the_same(
    lengths: list[int], gap: tuple[int, int], seed: int, patch_width: int, pooling: str
) -> None:
    """Any lengths in any batch, with a silent stretch somewhere."""
    network = student(seed, patch_width=patch_width, pooling=pooling)
    waveform = torch.zeros(len(lengths), max(lengths))
    for index, (row, length) in enumerate(zip(waveform, lengths, strict=True)):
        row[:length] = AUDIO[index * 16_000 :][:length]
    waveform[:, min(gap) : max(gap)] = 0
    image = FRONTEND(waveform)
    plain = network(image)
    torch.testing.assert_close(network.head(network.embed(image)), plain, atol=1e-5, rtol=0)
    alone = torch.cat(
        [network.head(network.embed(FRONTEND(row[None, :n]))) for row, n in zip(waveform, lengths, strict=True)]
    )
    torch.testing.assert_close(alone, plain, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_any_constant_column_is_padding() -> None:
    network = student(0)
    image = FRONTEND(AUDIO[None, :32_000])
    image[..., 20:40] = torch.rand(20, generator=torch.Generator().manual_seed(0))  # a level each
    patches, key_bias = network.collapse(network.patches(image))
    blank = int((image[0, 0] == image[0, 0, :1]).all(dim=0).sum())
    assert blank > 80
    assert patches.shape[1] == 128 - blank + 1
    assert key_bias[0, -1] == pytest.approx(math.log(blank))
    torch.testing.assert_close(network.head(network.embed(image)), network(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("seconds", "columns"), [(0.5, 18), (1.0, 34), (2.0, 66), (2.5, 82), (4.0, 128)])
def test_the_columns_that_are_left_for_the_network(seconds: float, columns: int) -> None:
    """31.25 ms each, one more that the last frames reach into, and one for all padding."""
    patches, _ = student(0).collapse(student(0).patches(FRONTEND(AUDIO[None, : round(seconds * 16_000)])))
    assert patches.shape[1] == columns


def test_the_front_end_computes_only_frames_that_touch_audio() -> None:
    noise = torch.rand(1, 64_000, generator=torch.Generator().manual_seed(0)) - 0.5
    for samples in (1, 100, 16_000, 40_000, 64_000):
        power = FRONTEND.mel_power(noise[:, :samples])
        assert power.shape[1] == min(1001, -(-(samples + 256) // 64))
        assert power[0, -1].any()
