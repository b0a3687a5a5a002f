"""Model cards: what the Hub reads in them is what is known, and what an owner wrote stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hub_client import CONFIG
from speech_emotion_vit.errors import ConfigError
from speech_emotion_vit.weights.card import CardFacts, card_for, complete_card, gaps, write_card
from speech_emotion_vit.weights.manifest import Metric
from speech_emotion_vit.weights.resolve import list_models, resolve_model

SCORE = Metric(name="UA", value=0.61234, protocol="speaker", split="test", clips=120, speakers=8, interval=(0.5, 0.72))


@pytest.mark.parametrize("name", [entry.name for entry in list_models()])
def test_the_card_of_a_published_model_has_its_record(name: str) -> None:
    model = resolve_model(name)
    entry = model.entry
    card = ModelCard(card_for(model, entry.config))
    assert card.data.library_name == "speech-emotion-vit"
    assert card.data.datasets == list(entry.heard)
    assert {"en"} <= set(card.data.language) <= {"en", "de", "it", "zh", "ur"}
    assert [result.metric_value for result in card.data.eval_results] == [round(m.value, 4) for m in entry.metrics]
    assert card.data.eval_results[0].metric_type == "recall"
    for said in (entry.license, entry.trained_on, entry.citation, ", ".join(entry.config.labels)):
        assert said.rstrip(".") in card.text
    assert gaps(card.content) == []


def test_scores_are_in_the_front_matter_and_in_the_text() -> None:
    text = write_card(CONFIG, CardFacts(license="mit", metrics=(SCORE,), scored_on="Anna and Ben"))
    card = ModelCard(text)
    assert card.data.metrics == ["recall"]
    (result,) = card.data.eval_results
    assert (result.metric_value, result.dataset_name, result.dataset_type) == (0.6123, "Anna and Ben", "anna-and-ben")
    assert result.metric_name == "UA, speaker protocol"
    assert "| Anna and Ben | UA | 61.2 (50.0 to 72.0) | speaker, test | 120 | 8 |" in text
    assert gaps(text) == ["language", "datasets"]


def test_what_an_owner_wrote_stays_and_what_is_told_is_added() -> None:
    own = "---\nlicense: apache-2.0\ntags: [voices]\ncontact: anna\nlanguage: [it]\n---\n# Mine\n\n---\nA line above.\n"
    text = complete_card(own, CardFacts(license="mit", datasets=("org/voices",)))
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["contact"], data["language"]) == ("mit", "anna", ["it"])
    assert data["datasets"] == ["org/voices"]
    assert data["tags"][0] == "voices"
    assert text.endswith("---\n\n# Mine\n\n---\nA line above.\n")
    assert complete_card(text, CardFacts()) == text
    scored = complete_card(text, CardFacts(metrics=(SCORE,)))
    assert complete_card(scored, CardFacts()) == scored  # scores come back as they are
    bare = complete_card("\ufeff# Mine\r\n\r\nA text.\r\n", CardFacts())
    assert ModelCard(bare).data.pipeline_tag == "audio-classification"
    assert "# Mine" in bare


@pytest.mark.parametrize(
    "front", ["license: [", "- a\n- list", "model-index: 5", "license: mit\nlicense\n", "x: !!python/object:os.system"]
)
def test_front_matter_that_cannot_be_read_is_named(front: str) -> None:
    with pytest.raises(ConfigError, match=r"README.md: the lines between its first two --- cannot be read") as caught:
        complete_card(f"---\n{front}\n---\n# Mine\n", CardFacts())
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"license": "Licence of mine"}, "a licence: write it as mit, cc-by-4.0 or other"),
        ({"language": ("English",)}, "a language: write it as en or de"),
        ({"datasets": ("our own calls",)}, "a data set: write it as org/name"),
        ({"base_model": "base"}, "a base model: write it as org/name"),
    ],
)
def test_facts_are_written_as_the_hub_writes_them(facts: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CardFacts(**facts)


def test_a_card_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"\xff\xfe\x00")
    model = replace(resolve_model(), entry=None, weights=tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"README.md: cannot be read"):
        card_for(model, CONFIG)
