"""The official layout becomes ours, and the outputs stay those of the official code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from helpers import ROOT
from official_weights import official_shapes, official_state, save, values
from speech_emotion_vit.errors import WeightsError
from speech_emotion_vit.model.config import ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.weights.checkpoint import load_checkpoint, save_checkpoint
from speech_emotion_vit.weights.convert import convert_official, official_name
from speech_emotion_vit.weights.manifest import CORPUS_LABELS

PARITY = json.loads((ROOT / "tests" / "data" / "official_parity.json").read_text())["expected"]
TOLERANCE = 1e-4  # of the stored outputs


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_the_outputs_are_those_of_the_official_code(tmp_path: Path, kind: str) -> None:
    expected = PARITY[kind]
    state = official_state(kind)
    assert len(state) == expected["tensors"]
    model, config = convert_official(save(tmp_path / "official.ckpt", state, epoch=50, accuracy=0.9))
    assert config.labels == CORPUS_LABELS["crema-d"]
    assert config.model == getattr(ModelConfig, kind)(6)
    assert not model.training

    image = torch.sigmoid(torch.from_numpy(values("image", (2, 1, 128, 128))))
    image[1, :, :, 90:] = 0.0
    with torch.inference_mode():
        logits, embedding = model(image), model.forward_features(image).embedding
    assert torch.allclose(logits, torch.tensor(expected["logits"]), rtol=0, atol=TOLERANCE)
    assert torch.allclose(embedding[:, :8], torch.tensor(expected["feature_head"]), rtol=0, atol=TOLERANCE)
    assert embedding.abs().sum(1).tolist() == pytest.approx(expected["feature_l1"], abs=256 * TOLERANCE)


def test_a_converted_network_survives_the_disk(tmp_path: Path) -> None:
    model, config = convert_official(save(tmp_path / "official.ckpt", official_state("student")))
    save_checkpoint(tmp_path / "ours.safetensors", model, config)
    loaded, found = load_checkpoint(tmp_path / "ours.safetensors")
    assert found == config
    image = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(loaded(image), model(image), atol=5e-3)


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_the_table_names_every_tensor_once(kind: str) -> None:
    names = [official_name(name) for name in SpectrogramViT(getattr(ModelConfig, kind)(6)).state_dict()]
    assert sorted(names) == sorted(official_shapes(kind, 6))


def test_seven_classes_are_ambiguous(tmp_path: Path) -> None:
    path = save(tmp_path / "official.ckpt", official_state("student", 7))
    with pytest.raises(WeightsError, match=r"7 classes.*emodb \(anger, boredom.*or savee \(anger.*--dataset"):
        convert_official(path)
    for corpus in ("emodb", "savee"):
        assert convert_official(path, labels=CORPUS_LABELS[corpus])[1].labels == CORPUS_LABELS[corpus]


@pytest.mark.parametrize("labels", [["a", "b"], ["a"] * 6, ["a", "b", "c", "d", "e", ""], CORPUS_LABELS["emodb"]])
def test_labels_that_do_not_fit(tmp_path: Path, labels: list[str]) -> None:
    path = save(tmp_path / "official.ckpt", official_state("student"))
    with pytest.raises(WeightsError, match="6 different non-empty labels are needed"):
        convert_official(path, labels=labels)


def test_other_numbers_of_classes_need_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "official.ckpt", official_state("student", 4))
    with pytest.raises(WeightsError, match="4 classes, which fits none of the corpora"):
        convert_official(path)
    assert convert_official(path, labels="abcd")[1].labels == ("a", "b", "c", "d")


def test_the_teacher_on_wide_images_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = save(tmp_path / "teacher_1001_savee.ckpt", official_state("teacher"))
    with pytest.raises(WeightsError, match=r"1001 columns wide.*divides the coordinates by the wrong side"):
        convert_official(path)


def test_strict(tmp_path: Path) -> None:
    state = official_state("student")
    del state["transformer.norm.bias"]
    state["pos_embedding"] = torch.zeros(1, 129, 256)
    state["mlp_head.bias"] = torch.zeros(5)
    with pytest.raises(WeightsError) as raised:
        convert_official(save(tmp_path / "official.ckpt", state))
    for part in ("1 missing: transformer.norm.bias", "1 unexpected: pos_embedding [1, 129, 256]", "mlp_head.bias [5]"):
        assert part in str(raised.value)


def test_twelve_layers_are_another_network(tmp_path: Path) -> None:
    state = official_state("teacher")
    extra = {key.replace("layers.5.", "layers.6."): tensor for key, tensor in state.items() if "layers.5." in key}
    with pytest.raises(WeightsError, match=r"11 unexpected: transformer\.layers\.6"):
        convert_official(save(tmp_path / "official.ckpt", state | extra))


def test_nan_is_refused(tmp_path: Path) -> None:
    state = official_state("student")
    state["mlp_head.bias"][2] = float("nan")
    with pytest.raises(WeightsError, match=r"NaN.*mlp_head\.bias"):
        convert_official(save(tmp_path / "official.ckpt", state))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"open({str(self.target)!r}, 'w').close()",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "official.ckpt", tmp_path / "executed"
    content = {"model_state_dict": official_state("student"), "extra": Malicious(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="nothing of it was loaded") as raised:
        convert_official(path)
    assert "\n" not in str(raised.value)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the trap works
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"state_dict": {}}, "no 'model_state_dict' in it, but ['state_dict']"),
        ({"model_state_dict": {}}, "no 'model_state_dict'"),
        ([1, 2], "but list"),
        (torch.zeros(3), "but Tensor"),
        ({"model_state_dict": {"cls_token": 5}}, "more than named dense tensors: cls_token"),
        ({"model_state_dict": {"cls_token": torch.zeros(1)}}, "no mlp_head.weight"),
        ({"model_state_dict": {"mlp_head.weight": torch.zeros(1)}}, "no mlp_head.weight"),
        (
            {"model_state_dict": {"mlp_head.weight": torch.zeros(1).expand(10**9, 256)}},
            "num_classes must be a whole number from",
        ),
    ],
)
def test_other_pickles(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "official.ckpt")
    with pytest.raises(WeightsError) as raised:
        convert_official(tmp_path / "official.ckpt")
    assert said in str(raised.value)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_refused(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(4, 3)])
    path = save(tmp_path / "official.ckpt", {"mlp_head.weight": torch.zeros(6, 256), "odd": nested})
    with pytest.raises(WeightsError, match="more than named dense tensors: odd"):
        convert_official(path)


def test_other_files(tmp_path: Path) -> None:
    path = save(tmp_path / "official.ckpt", official_state("student"))
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:1000], whole[:-100], pickle.dumps({"model_state_dict": {}})):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"official\.ckpt"):
            convert_official(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        convert_official(tmp_path / "gone.ckpt")
    with pytest.raises(WeightsError, match="cannot be read"):
        convert_official(tmp_path)
