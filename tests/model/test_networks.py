from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_emotion_vit import ConfigError, ModelConfig, SpectrogramViT


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


@pytest.mark.parametrize("shape", [(1, 128, 128), (1, 2, 128, 128), (1, 1, 128, 127)])
def test_wrong_images_are_refused(student: SpectrogramViT, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"takes \[batch, 1, 128, 128\], not"):
        student(torch.zeros(shape))


@given(order=st.permutations(range(128)), filled=st.integers(0, 128))
@settings(max_examples=20, deadline=None)
def test_no_order_of_the_columns_is_anything_to_the_student(
    student: SpectrogramViT, order: list[int], filled: int
) -> None:
    image = images(1, [filled])
    torch.testing.assert_close(student.embed(image[..., order]), student.embed(image), atol=1e-5, rtol=0)
