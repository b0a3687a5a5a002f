from __future__ import annotations

import dataclasses
import json

import pytest

from speech_emotion_vit.errors import ConfigError
from speech_emotion_vit.model.config import FrontendConfig, ModelConfig
from speech_emotion_vit.training.recipes import RECIPES, Recipe


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_paper_recipe_is_the_papers() -> None:
    recipe = RECIPES["paper"]
    for stage in (recipe.teacher, recipe.match, recipe.student):
        assert (stage.epochs, stage.optimizer, stage.learning_rate, stage.halve_every) == (50, "adam", 1e-4, 10)
        assert (stage.schedule, stage.batch_size, stage.weight_decay, stage.drop) == ("halving", 32, 0.0, 0.0)
    assert recipe.alpha == 10
    assert recipe.versions == ("original", "noise", "shift", "speed")
    assert recipe.frontend == FrontendConfig(long_clips="truncate")
    assert not recipe.augmentation.active
    assert recipe.student_model(6) == ModelConfig.student(6)
    assert recipe.teacher_model(6) == ModelConfig.teacher(6)


def test_every_value_of_a_recipe_has_its_reason() -> None:
    import ast

    from helpers import ROOT

    undocumented = []
    for name in ("recipes.py", "data/specaugment.py"):
        tree = ast.parse((ROOT / "src" / "speech_emotion_vit" / "training" / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for member, following in zip(node.body, [*node.body[1:], None], strict=True):
                    is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    if isinstance(member, ast.AnnAssign) and not is_text:
                        undocumented.append(f"{node.name}.{ast.unparse(member.target)}")
    assert undocumented == []


def test_values_are_changed_by_name() -> None:
    recipe = RECIPES["robust"].with_values(
        {
            "student.learning_rate": "1e-3",
            "versions": '["original", "speed"]',
            "augmentation.noise": "0.2",
            "compact_patch_width": "16",
        }
    )
    assert recipe.student.learning_rate == 1e-3
    assert recipe.versions == ("original", "speed")
    assert recipe.augmentation.noise == 0.2
    assert recipe.student_model(6).patch_width == 16
    assert RECIPES["paper"].with_values({"patch_width": "16"}).student_model(6).patch_width == 16
    without = RECIPES["paper"].with_values({"teacher_stem": "false", "teacher_coordinates": "false"})
    assert without.teacher_model(6) == dataclasses.replace(ModelConfig.student(6), depth=6)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"student.lr": "1"}, r"no value 'student\.lr': it has .*student\.learning_rate"),
        ({"alpha": "much"}, r"alpha must be float, not 'much'"),
        ({"alpha": "-1"}, r"alpha must be from 0"),
        ({"student.epochs": "0"}, r"epochs must be from 1"),
        ({"student.epochs": "1.5"}, r"epochs must be int"),
        ({"student.optimizer": "sgd"}, r"optimizer must be one of adam, adamw, not 'sgd'"),
        ({"versions": '["noise"]'}, r"versions must be different and contain original"),
        ({"temperature_factor": "0.4"}, r"temperature_factor must be from 0.5 to 2, not 0.4"),
        ({"versions": '["original", "loud"]'}, r"versions must be of original, noise, shift, speed"),
        ({"probe.penalties": "[]"}, r"probe\.penalties must be numbers above 0 and up to 1e6, not \(\)"),
        ({"probe.penalties": "[1, 0]"}, r"probe\.penalties must be numbers above 0"),
        ({"probe.penalties": "[true]"}, r"penalties must be a list of numbers"),
        ({"probe.penalties": "1"}, r"penalties must be a list of numbers, not 1"),
        ({"student_network": "paper", "patch_width": "5"}, r"not a multiple"),
        (
            {"compact_patch_width": "32"},
            r"a strided stem makes tokens of 128 rows and 1, 2, 4, 8, 16 columns, not of 128 x 32",
        ),
        ({"frontend.top_db": "0"}, r"top_db must be a number from 1 to 200"),
        ({"frontend.floor": "1"}, r"floor must be a number from 0 to 0\.9, not 1"),
    ],
)
def test_senseless_values_are_refused_by_name(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RECIPES["robust"].with_values(change)


@pytest.mark.parametrize("name", ["x/../../y", "", "..", "a\0b", "a\udce9", "a b", "x" * 65, "a\n"])
def test_a_name_that_is_no_folders_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name must be 1 to 64 letters"):
        Recipe.from_dict({"name": name})


def test_unknown_keys_of_a_recipe_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown keys"):
        Recipe.from_dict(RECIPES["paper"].to_dict() | {"epochs": 3})
