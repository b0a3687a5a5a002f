from __future__ import annotations

import ast
import dataclasses
import json

import pytest

from helpers import ROOT
from speech_emotion_vit.errors import ConfigError
from speech_emotion_vit.model.config import FrameViTConfig, FrontendConfig, ModelConfig
from speech_emotion_vit.training.recipes import RECIPES, HeadStage, Recipe, StudentStage, TeacherStage
from speech_emotion_vit.weights.manifest import load_manifest


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_paper_recipe_is_the_papers() -> None:
    recipe = RECIPES["paper"]
    assert [stage.name for stage in recipe.stages] == ["teacher", "match", "student"]
    for stage in recipe.stages:
        assert (stage.epochs, stage.learning_rate, stage.batch_size) == (50, 1e-4, 32)  # type: ignore[union-attr]
        assert stage.schedule == "halving"  # type: ignore[union-attr]
    assert recipe.stage(StudentStage).alpha == 10
    assert recipe.versions == ("original", "noise", "shift", "speed")
    assert recipe.frontend == FrontendConfig(long_clips="truncate")
    assert recipe.network(6) == ModelConfig.student(6)
    assert recipe.teacher(6) == ModelConfig.teacher(6)


def test_what_ships_is_what_the_recipes_say() -> None:
    base, small, research = (RECIPES[name] for name in ("base", "small", "research"))
    assert base.network(6) == FrameViTConfig.base(6)
    assert small.network(6) == FrameViTConfig.small(6)
    assert [stage.name for stage in base.stages] == ["frames", "head"]
    assert ([stage.name for stage in small.stages], small.start) == (["narrow", "head"], "base")
    assert base.corpora == small.corpora == ("crema-d", "emodb")  # free for everybody
    assert (research.model, research.stages) == (dataclasses.replace(base.model, head_hidden=0), base.stages)  # type: ignore[arg-type]
    assert research.corpora == ("crema-d", "emodb", "savee", "emovo", "casia", "urdu")
    for name in {"base", "small", "research"} & set(load_manifest().models):
        config = load_manifest().get(name).config
        assert config.model == RECIPES[name].network(len(config.labels))
        assert config.frontend == RECIPES[name].frontend
        assert not RECIPES[name].labels or set(config.labels) == set(RECIPES[name].labels)


def test_every_value_of_a_recipe_has_its_reason() -> None:
    undocumented = []
    tree = ast.parse((ROOT / "src" / "speech_emotion_vit" / "training" / "recipes.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member, following in zip(node.body, [*node.body[1:], None], strict=True):
                is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if isinstance(member, ast.AnnAssign) and not is_text:
                    undocumented.append(f"{node.name}.{ast.unparse(member.target)}")
    assert undocumented == []


def test_values_are_changed_by_name() -> None:
    recipe = RECIPES["paper"].with_values(
        {
            "student.learning_rate": "1e-3",
            "student.alpha": "3",
            "versions": '["original", "speed"]',
            "model.patch_width": "16",
            "frontend.mel_scale": "htk",
        }
    )
    student = recipe.stage(StudentStage)
    assert (student.learning_rate, student.alpha) == (1e-3, 3.0)
    assert recipe.versions == ("original", "speed")
    assert recipe.network(6).patch_width == recipe.teacher(6).patch_width == 16  # type: ignore[union-attr]
    assert recipe.frontend.mel_scale == "htk"
    without = RECIPES["paper"].with_values({"teacher.stem": "false", "teacher.coordinates": "false"})
    assert without.teacher(6) == dataclasses.replace(ModelConfig.student(6), depth=6)
    head = RECIPES["base"].with_values(
        {"head.penalties": "[3, 0.3]", "model.head_hidden": "0", "model.taps": "1", "frames.epochs": "2"}
    )
    assert head.stage(HeadStage).penalties == (3.0, 0.3)
    assert head.network(6).taps == 1  # type: ignore[union-attr]


def test_images_are_as_large_as_the_front_end_makes_them() -> None:
    recipe = RECIPES["paper"].with_values(
        {"frontend.n_mels": "32", "frontend.columns": "64", "model.patch_height": "32"}
    )
    assert (recipe.network(6).image_height, recipe.network(6).image_width) == (32, 64)  # type: ignore[union-attr]
    assert RECIPES["small"].with_values({"frontend.n_mels": "40"}).network(6).n_mels == 40  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"student.lr": "1"}, r"paper reads no value 'student\.lr': it reads .*student\.learning_rate"),
        ({"model.num_classes": "1"}, r"paper reads no value 'model\.num_classes'"),
        ({"student.alpha": "much"}, r"stage student: alpha must be a number from 0 to 1e\+06, not 'much'"),
        ({"student.alpha": "-1"}, r"stage student: alpha must be a number from 0 to 1e\+06, not -1"),
        ({"student.epochs": "0"}, r"stage student: epochs must be a whole number from 1 to 100000, not 0"),
        ({"student.epochs": "1.5"}, r"stage student: epochs must be a whole number"),
        ({"student.schedule": "wild"}, r"stage student: schedule must be one of halving, cosine, not 'wild'"),
        ({"teacher.stem": "1"}, r"stage teacher: stem must be true or false, not 1"),
        ({"versions": '["noise"]'}, r"versions must be of original, noise, shift, speed and contain the first"),
        ({"versions": '["original", "loud"]'}, r"versions must be of original, noise, shift, speed"),
        ({"model.patch_width": "5"}, r"not a multiple"),
        ({"frontend.top_db": "0"}, r"top_db must be a number from 1"),
    ],
)
def test_senseless_values_are_refused_by_name(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RECIPES["paper"].with_values(change)


def test_only_some_stages_read_only_their_values() -> None:
    teacher = RECIPES["paper"].only(("teacher",))
    assert [type(stage) for stage in teacher.stages] == [TeacherStage]
    assert not any(name.startswith(("match", "student")) for name in teacher.value_names())
    with pytest.raises(ConfigError, match=r"recipe paper has no stage head: it has teacher, match, student"):
        RECIPES["paper"].only(("teacher", "head"))


@pytest.mark.parametrize("name", ["x/../../y", "", "..", "a\0b", "a\udce9", "a b", "x" * 65, "a\n"])
def test_a_name_that_is_no_folders_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name must be 1 to 64 letters"):
        Recipe.from_dict(RECIPES["paper"].to_dict() | {"name": name})


def test_what_is_no_recipe_is_refused() -> None:
    values = RECIPES["paper"].to_dict()
    for change, complaint in (
        ({"epochs": 3}, "recipe has unknown keys"),
        ({"frontend": {"height": 3}}, "unknown keys"),
        ({"model": {"height": 3}}, "unknown keys"),
        ({"stages": [{"stage": "pupil"}]}, "stage must be one of teacher, match, student, .*, not 'pupil'"),
        ({"stages": [{"stage": "teacher", "lr": 1}]}, "stage teacher: it has unknown keys"),
        ({"stages": []}, "stages must be different ones, at least one"),
        ({"stages": [{"stage": "teacher"}] * 2}, "stages must be different ones"),
        ({"stages": [{"stage": "frames"}]}, "stages frames are for another network than ModelConfig"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            Recipe.from_dict(values | change)
    with pytest.raises(ConfigError, match="versions are of images of one width"):
        Recipe.from_dict(RECIPES["base"].to_dict() | {"versions": ["original", "speed"]})
    with pytest.raises(ConfigError, match="recipe must be a JSON object"):
        Recipe.from_dict([])
