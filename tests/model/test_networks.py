from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_emotion_vit import ConfigError, ModelConfig, SpectrogramViT
from speech_emotion_vit.model import stem
from speech_emotion_vit.model.contour_bands import contour_bands
from speech_emotion_vit.model.contours import contour_statistics
from speech_emotion_vit.model.mel import mel_edges


def network(config: ModelConfig, seed: int = 0) -> SpectrogramViT:
    torch.manual_seed(seed)
    return SpectrogramViT(config).eval()


@pytest.fixture(scope="module")
def student() -> SpectrogramViT:
    return network(ModelConfig.student(6))


@pytest.fixture(scope="module")
def teacher() -> SpectrogramViT:
    return network(ModelConfig.teacher(6))


def images(batch: int, filled: list[int], seed: int = 0) -> torch.Tensor:
    """Random images whose columns from `filled[i]` on are zero."""
    result = torch.rand(batch, 1, 128, 128, generator=torch.Generator().manual_seed(seed))
    for image, columns in zip(result, filled, strict=True):
        image[..., columns:] = 0
    return result


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (ModelConfig.student(6), 1_417_734),
        (ModelConfig.student(7), 1_417_991),
        (ModelConfig.teacher(6), 2_911_943),
        (ModelConfig.teacher(7), 2_912_200),
    ],
    ids=["student6", "student7", "teacher6", "teacher7"],
)
def test_parameter_counts_are_the_papers(config: ModelConfig, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in SpectrogramViT(config).parameters()) == parameters


def test_tensor_counts_are_the_papers(student: SpectrogramViT, teacher: SpectrogramViT) -> None:
    assert len(student.state_dict()) == 44
    assert len(teacher.state_dict()) == 89


def test_permuting_the_columns_changes_nothing_for_the_student(student: SpectrogramViT) -> None:
    image = images(2, [128, 70])
    order = torch.randperm(128, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(student(image[..., order]), student(image), atol=1e-5, rtol=0)
    torch.testing.assert_close(student(image.flip(3)), student(image), atol=1e-5, rtol=0)


def test_the_teacher_hears_the_order(teacher: SpectrogramViT) -> None:
    image = images(1, [128])
    assert (teacher(image.flip(3)) - teacher(image)).abs().max() > 1e-3


def test_coordinates_alone_and_the_stem_alone_hear_the_order() -> None:
    image = images(1, [128])
    for change in ({"coordinates": True}, {"stem": "conv6"}):
        model = network(ModelConfig(num_classes=6, depth=1, **change))  # type: ignore[arg-type]
        assert (model(image.flip(3)) - model(image)).abs().max() > 1e-4, change


@pytest.mark.parametrize("make", [ModelConfig.student, ModelConfig.teacher])
def test_a_row_of_a_batch_is_the_single_result(make: type[ModelConfig]) -> None:
    model = network(make(6))
    batch = images(3, [128, 90, 20])
    rows = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(model(batch), rows, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [ModelConfig.student, ModelConfig.teacher])
def test_every_parameter_gets_a_gradient(make: type[ModelConfig]) -> None:
    model = network(make(6)).train()
    torch.nn.functional.cross_entropy(model(images(4, [128, 100, 60, 128])), torch.tensor([0, 1, 2, 3])).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A constant before InstanceNorm is taken out again: the stem's biases cannot matter.
    assert all(name.startswith("stem.convolutions") and name.endswith("bias") for name in without), without


def test_the_head_reads_the_embedding(student: SpectrogramViT) -> None:
    image = images(2, [128, 40])
    features = student.forward_features(image)
    assert features.embedding.shape == (2, 256)
    assert features.tokens.shape == (2, 128, 256)
    assert torch.equal(student.head(features.embedding), student(image))


def test_patches_are_ordered_row_column_channel() -> None:
    model = network(ModelConfig(num_classes=2, depth=1, patch_height=64, patch_width=2, coordinates=True))
    image = images(1, [128])
    patches = model.patches(image)
    assert patches.shape == (1, 2 * 64, 64 * 2 * 3)
    second_of_lower_row = patches[0, 64 + 1].view(64, 2, 3)
    assert torch.equal(second_of_lower_row[..., 0], image[0, 0, 64:, 2:4])
    assert torch.equal(second_of_lower_row[:, 0, 1], torch.linspace(-1, 1, 128)[64:])
    assert torch.equal(second_of_lower_row[0, :, 2], torch.linspace(-1, 1, 128)[2:4])


def test_coordinates_follow_the_model_but_are_no_parameters() -> None:
    model = network(ModelConfig(num_classes=2, depth=1, coordinates=True))
    assert not any("coordinates" in key for key in model.state_dict())
    assert model.double().coordinates.dtype == torch.float64
    assert model(images(40, [128] * 40).double()).shape == (40, 2)


@given(
    filled=st.lists(st.integers(0, 128), min_size=1, max_size=4),
    gap=st.tuples(st.integers(0, 127), st.integers(0, 127)),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_collapsed_padding_gives_the_same_embedding(filled: list[int], gap: tuple[int, int], seed: int) -> None:
    """Any lengths, any batch, with a silent stretch in the middle."""
    model = network(ModelConfig.student(6))
    batch = images(len(filled), filled, seed)
    batch[..., min(gap) : max(gap)] = 0
    torch.testing.assert_close(model.embed(batch), model.forward_features(batch).embedding, atol=1e-5, rtol=0)


def test_collapsing_keeps_one_patch_of_padding(student: SpectrogramViT) -> None:
    patches, key_bias = student.collapse(student.patches(images(2, [50, 20])))
    assert patches.shape == (2, 51, 128)
    assert key_bias[0].tolist() == pytest.approx([0.0] * 50 + [torch.tensor(78.0).log().item()])
    assert key_bias[1, 20] == pytest.approx(torch.tensor(108.0).log().item())
    assert key_bias[1, 21:].eq(float("-inf")).all()


def test_the_teacher_embeds_without_collapsing(teacher: SpectrogramViT) -> None:
    image = images(1, [60])
    torch.testing.assert_close(teacher.embed(image), teacher.forward_features(image).embedding, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="cannot be collapsed"):
        teacher.collapse(teacher.patches(image))


@pytest.mark.parametrize("shape", [(1, 128, 128), (1, 2, 128, 128), (1, 1, 128, 127)])
def test_wrong_images_are_refused(student: SpectrogramViT, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"takes \[batch, 1, 128, 128\], not"):
        student(torch.zeros(shape))


@pytest.fixture(scope="module")
def compact() -> SpectrogramViT:
    """The project's own student, with running statistics as after some training."""
    model = network(ModelConfig.compact(6))
    with torch.no_grad():
        for norm in model.stem.norms:  # type: ignore[union-attr]
            norm.running_mean.uniform_(-0.1, 0.1)
            norm.running_var.uniform_(0.05, 0.5)
            norm.bias.uniform_(-0.5, 0.5)
    return model


@pytest.fixture(scope="module")
def probed(compact: SpectrogramViT) -> SpectrogramViT:
    """The same with a head that also reads statistics of the stem's output and of contours."""
    model = network(dataclasses.replace(compact.config, pooling="contour_statistics"))
    model.load_state_dict({k: v for k, v in compact.state_dict().items() if "head" not in k}, strict=False)
    return model


def test_the_compact_student_keeps_its_budget(compact: SpectrogramViT) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    assert sum(parameter.numel() for parameter in compact.parameters()) == 1_209_958
    with FlopCounterMode(display=False) as counter:
        compact(images(1, [128]))
    assert counter.get_total_flops() / 2 < 250e6


@given(filled=st.lists(st.integers(1, 128), min_size=2, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_padding_cannot_reach_the_compact_student(
    compact: SpectrogramViT, probed: SpectrogramViT, filled: list[int], seed: int
) -> None:
    """A clip in a batch of any others, however much padding they need, is the clip alone."""
    batch = images(len(filled), filled, seed)
    for model in (compact, probed):
        alone = torch.cat([model.embed(image[None]) for image in batch])
        torch.testing.assert_close(model.embed(batch), alone, atol=1e-5, rtol=0)


def test_statistics_of_the_stem_come_behind_the_students_own_embedding(
    compact: SpectrogramViT, probed: SpectrogramViT
) -> None:
    image = images(1, [70])
    patches = compact.tokenize(image)[0]
    moments = patches.mean(dim=1), (patches.var(dim=1, correction=0) + 1e-5).sqrt()
    expected = torch.cat((compact.embed(image), *moments, contour_statistics(image, torch.tensor([70]))), dim=1)
    torch.testing.assert_close(probed.embed(image), expected)
    torch.testing.assert_close(probed.forward_features(image).embedding, expected)


@pytest.mark.parametrize("columns", [1, 2, 3, 70])
def test_statistics_of_contours_are_what_they_say(columns: int) -> None:
    """Against the formulas of numpy and scipy, one contour after the other."""
    image = images(1, [columns])
    levels = image[0, 0, :, :columns].double().numpy()
    amplitudes = 10 ** (4 * (levels - 1))  # 80 dB from 0 to 1
    amplitude = np.sqrt((amplitudes**2).sum(axis=0))
    loudest = amplitude.max()
    flux = np.sqrt((np.diff(amplitudes, axis=1, prepend=amplitudes[:, :1]) ** 2).sum(axis=0)) / loudest

    def centre(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        places = np.arange(len(weights)) / len(weights)
        return np.array([np.average(places, weights=column) for column in weights.T])

    def level(amplitude: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return (80 + 10 * np.log10((amplitude / loudest) ** 2 + 1e-8)) / 80

    contours = [amplitude / loudest, level(amplitude), flux, centre(amplitudes)]
    places = np.arange(128) / 128
    contours.append(np.array([np.sqrt(np.cov(places, aweights=column, ddof=0)) for column in amplitudes.T]))
    contours.append(centre(amplitudes[:42]))
    contours += [centre(np.exp(20 * levels[first:last])) for first, last in ((2, 16), (10, 42))]
    octaves = np.split(amplitudes, [10, 21, 42, 71, 100])
    contours += [level(np.sqrt((octave**2).sum(axis=0))) for octave in octaves]

    place = np.linspace(-1, 1, columns) if columns > 1 else np.zeros(1)
    expected = []
    for contour in contours:
        deviation = np.sqrt(contour.var() + 1e-5)
        numbers = [contour.mean(), deviation, scipy.stats.moment(contour, 3) / deviation**3]
        numbers += [np.mean(contour * place), np.mean(contour * (place**2 - 1 / 3))]
        change = np.diff(contour) if columns > 1 else np.zeros(1)
        rise, fall = np.maximum(change, 0), np.maximum(-change, 0)
        peak = np.minimum(rise[:-1], fall[1:]) if columns > 2 else np.zeros(1)
        height = (peak * contour[1:-1]).mean() / (peak.mean() + 1e-3) if columns > 2 else 0.0
        numbers += [peak.mean(), np.mean(peak / (peak + 0.02)), height]
        numbers += [np.sqrt(each.var() + 1e-5) for each in (rise, fall)]
        expected.append([*numbers, *(np.mean(each / (each + 0.02)) for each in (rise, fall))])
    found = contour_statistics(image, torch.tensor([columns]))
    np.testing.assert_allclose(found[0], np.transpose(expected).ravel(), atol=1e-4)  # float32 in the cube


def test_the_bands_of_contours_are_what_they_say() -> None:
    """Bands of the default front-end whose centres are between two frequencies; in a lower image the same parts."""
    centres = mel_edges(128, 0.0, 8000.0, "slaney")[1:-1]
    edges = (0, 250, 500, 1000, 2000, 4000, 8000)
    bands = contour_bands(128)
    found = (bands.low, bands.fundamental, bands.formant, *bands.octaves)
    hertz = ((0, 1000), (60, 390), (250, 1000), *pairwise(edges))
    assert found == tuple(tuple(np.searchsorted(centres, bounds)) for bounds in hertz)
    assert contour_bands(16).octaves == ((0, 1), (1, 2), (2, 5), (5, 8), (8, 12), (12, 16))
    assert contour_bands(16).fundamental == (0, 2)


def test_contours_are_those_of_a_swelling_tone() -> None:
    """A tone that rises by 40 dB, the same backwards, the same with two peaks, and the same 8 dB quieter."""
    image = torch.zeros(4, 1, 128, 128)
    image[0, 0, 40] = torch.linspace(0.5, 1.0, 128)
    image[1] = image[0].flip(2)
    image[2] = image[0]
    image[2, 0, 40, [30, 90]] += 0.2
    image[3] = (image[0] - 0.1).clamp(min=0)
    found = contour_statistics(image, torch.full((4,), 128)).unflatten(1, (12, 14)).transpose(1, 2).numpy()
    rising, falling, peaked, _ = found[:, 1]  # the level
    mean, _, _, slope, _, *peaks, rise, fall, rises, falls = rising
    assert (mean, slope) == pytest.approx((0.75, 0.25 / 3), abs=0.01)
    assert peaks == pytest.approx([0, 0, 0], abs=1e-6)  # it never falls
    assert (rise, fall, falls) == pytest.approx((1e-5**0.5, 1e-5**0.5, 0), abs=1e-4)  # and rises evenly
    assert rises == pytest.approx(0.5 / 127 / (0.5 / 127 + 0.02), abs=1e-3)
    np.testing.assert_allclose(falling[[0, 1, 2, 4]], rising[[0, 1, 2, 4]], atol=1e-4)
    np.testing.assert_allclose(falling[3], -rising[3], atol=1e-5)
    np.testing.assert_allclose(falling[[8, 9, 10, 11]], rising[[9, 8, 11, 10]], atol=1e-5)
    assert peaked[5] == pytest.approx(2 / 126 * 0.18, rel=0.1)
    assert peaked[6] == pytest.approx(2 / 126 * 0.9, rel=0.05)
    np.testing.assert_allclose(found[3, :2], found[0, :2], atol=0.01)  # relative to the loudest, but for the floor


def test_statistics_of_a_stem_need_the_strided_one() -> None:
    for pooling in ("stem_statistics", "contour_statistics"):
        with pytest.raises(ConfigError, match=f"{pooling} need a strided stem, not stem 'none'"):
            ModelConfig(num_classes=6, pooling=pooling)  # type: ignore[arg-type]


def test_the_compact_student_sees_an_image_that_ends_where_the_clip_ends(compact: SpectrogramViT) -> None:
    """An independent computation: the stem without masks on the image cut off, and attention without a bias."""
    image = images(1, [70])[..., :70]
    features = image
    for convolution, norm in zip(compact.stem.convolutions, compact.stem.norms, strict=True):  # type: ignore[union-attr]
        features = torch.nn.functional.relu(norm(convolution(features)))
    patches = features.permute(0, 3, 1, 2).flatten(2)
    expected = compact.forward_patches(patches).embedding
    padded = torch.nn.functional.pad(image, (0, 58))
    torch.testing.assert_close(compact.embed(padded), expected, atol=1e-5, rtol=0)


def test_the_compact_student_hears_the_order(compact: SpectrogramViT) -> None:
    image = images(1, [128])
    assert (compact(image.flip(3)) - compact(image)).abs().max() > 1e-4


def test_silence_has_an_embedding_too(compact: SpectrogramViT) -> None:
    assert compact.embed(torch.zeros(2, 1, 128, 128)).isfinite().all()


def test_every_parameter_of_the_compact_student_gets_a_gradient() -> None:
    model = network(ModelConfig.compact(6)).train()
    torch.nn.functional.cross_entropy(model(images(4, [128, 100, 60, 128])), torch.tensor([0, 1, 2, 3])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("config", [ModelConfig.student(6), ModelConfig.teacher(7), ModelConfig.compact(6)])
def test_the_short_way_to_the_embedding_is_the_long_one(config: ModelConfig) -> None:
    """Only the CLS token goes through the last block, and a stem's norms are in its kernels."""
    torch.manual_seed(0)
    model = SpectrogramViT(config).eval()
    for tensor in model.state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    batch = images(3, [128, 50, 1])
    patches, key_bias = model.tokenize(batch)
    expected = model.forward_patches(patches, key_bias).embedding
    torch.testing.assert_close(model.embed_patches(patches, key_bias), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.embed(batch), expected, atol=1e-5, rtol=0)
    if model.config.stem == "strided":
        stem = model.stem
        one = batch[:, :, :, :64]
        columns = torch.full((3,), 64)
        unfolded = one
        for convolution, norm in zip(stem.convolutions, stem.norms, strict=True):
            unfolded = torch.nn.functional.relu(norm(convolution(unfolded)))
        torch.testing.assert_close(stem(one, columns), unfolded, atol=1e-4, rtol=1e-4)


def test_what_a_stem_keeps_is_made_anew_whenever_a_weight_changes() -> None:
    model = SpectrogramViT(ModelConfig.compact(6)).eval()
    other = SpectrogramViT(ModelConfig.compact(6)).eval()
    batch = images(2, [128, 50])

    def answer(network: SpectrogramViT) -> torch.Tensor:
        with torch.no_grad():
            return network(batch)

    before = answer(model)
    assert model.stem._memory is not None  # type: ignore[union-attr]
    assert torch.equal(answer(model), before)
    with torch.no_grad():
        model.stem.norms[0].running_var.mul_(1.5)  # type: ignore[union-attr, index]
    changed = answer(model)
    assert not torch.equal(changed, before)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(answer(model), answer(other), atol=0, rtol=0)
    model.load_state_dict(SpectrogramViT(ModelConfig.compact(6)).state_dict(), assign=True)
    assert not torch.equal(answer(model), answer(other))
    with torch.no_grad():
        half = model.half().float()(batch)
    assert not torch.equal(half, answer(other))
    model.zero_grad()
    model(batch).sum().backward()  # in evaluation mode too
    assert model.stem.convolutions[0].weight.grad is not None  # type: ignore[union-attr, index]


def test_another_thread_may_forget_what_a_stem_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SpectrogramViT(ModelConfig.compact(6)).eval()

    def forgets(values: Iterable[object]) -> bool:
        model.stem._memory = None  # type: ignore[union-attr]
        return all(values)

    with torch.no_grad():
        before = model(images(1, [50]))
        monkeypatch.setattr(stem, "all", forgets, raising=False)
        assert torch.equal(model(images(1, [50])), before)


def test_the_short_way_has_gradients() -> None:
    model = SpectrogramViT(ModelConfig.student(6))
    for parameter in model.parameters():
        assert parameter.grad is None
    model.embed(images(2, [128, 50])).sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == ["head.weight", "head.bias"]
