"""Models sent by the Hub's real client to a server on loopback that speaks its protocol, and loaded from there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard

from helpers import CLIPS
from hub_client import CONFIG, environment, finish, free_port, start_worker
from hub_server import MAIN, HubServer, Repository
from speech_emotion_vit import ConfigError, EmotionClassifier, WeightsError
from speech_emotion_vit.cli import main
from speech_emotion_vit.model.build import build_network
from speech_emotion_vit.publish import publish
from speech_emotion_vit.weights.card import CardFacts
from speech_emotion_vit.weights.checkpoint import save_folder

FILES = ["README.md", "config.json", "model.safetensors"]
TOKEN = "hf_mine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and what else lies in the folder of a training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(CONFIG.model)
    made = save_folder(tmp_path_factory.mktemp("models") / "mine", network, CONFIG)
    (made / "predictions.csv").write_text("anna's recordings")
    return made


@pytest.fixture
def hub(server: HubServer) -> HubServer:
    server.writers[TOKEN] = "me"
    return server


def sending(folder: Path, repo_id: str, facts: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return {"call": "publish", "model": str(folder), "repo_id": repo_id, "facts": facts or {}, "options": options}


def test_a_folder_is_sent_in_one_commit_and_nothing_else_of_it(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    facts = {"license": "mit", "language": ["en"], "datasets": ["crema-d"], "base_model": "org/base"}
    worker = start_worker(hub.url, tmp_path, HF_TOKEN=TOKEN)
    first, again = finish(worker, *[sending(folder, "me/sent", facts, onnx=True)] * 2)
    sent = hub.repositories["me/sent"]
    assert sorted(sent.files) == sorted([*FILES, "model.onnx"])
    assert first["files"] == {name: len(content) for name, content in sent.files.items()}
    assert (first["commit"], first["url"]) == (sent.commit, f"{hub.url}/me/sent/commit/{sent.commit}")
    assert again == first  # the same bytes are no commit
    assert sent.messages == ["Upload a model of speech-emotion-vit"]
    assert first["torch"] is False
    for name in ("config.json", "model.safetensors"):
        assert sent.files[name] == (folder / name).read_bytes()
    assert hub.tokens["large"] == {None}  # the storage is not told who may write
    card = ModelCard(sent.files["README.md"].decode())
    assert card.content == first["card"] == hub.cards[-1]
    assert card.data.to_dict() == {
        "base_model": "org/base",
        "datasets": ["crema-d"],
        "language": ["en"],
        "library_name": "speech-emotion-vit",
        "license": "mit",
        "pipeline_tag": "audio-classification",
        "tags": ["speech-emotion-recognition", "vision-transformer", "log-mel-spectrogram"],
    }
    assert 'EmotionClassifier("me/sent")' in card.text
    assert first["missing"] == []
    session = onnxruntime.InferenceSession(sent.files["model.onnx"])
    assert session.get_modelmeta().custom_metadata_map["model"] == "me/sent"  # and not a path of this machine


SCRIPT = """
import json, sys
from speech_emotion_vit import EmotionClassifier
folder, clip = sys.argv[1:]
model = EmotionClassifier(folder)
done = model.push_to_hub("me/pushed", private=True, revision="v2", license="mit", language="en", datasets=["crema-d"])
models = [model, *(EmotionClassifier("me/pushed", revision=revision) for revision in (done.commit, "v2"))]
print(json.dumps([done.commit, [(each.name, each.predict(clip).probabilities) for each in models]]))
"""


def test_what_was_pushed_loads_by_its_name_and_answers_the_same(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, CLIPS[0]],
        env=environment(hub.url, tmp_path, HF_TOKEN=TOKEN),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    commit, answers = json.loads(run.stdout)
    sent = hub.repositories["me/pushed"]
    assert sent.private
    assert (sent.branches, sent.files) == ({"v2": commit}, {})
    assert sorted(sent.older[commit]) == FILES
    assert [name for name, _ in answers[1:]] == [f"me/pushed@{commit}"] * 2
    assert answers[1][1] == answers[2][1] == answers[0][1]
    assert ModelCard(sent.older[commit]["README.md"].decode()).data.language == ["en"]


def test_a_dry_run_shows_what_would_be_sent_and_needs_neither_token_nor_network(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "speech_emotion_vit", "publish", folder, "me/dry", "--dry-run", "--license", "mit"]
    run = subprocess.run(
        command,
        env=environment(f"http://127.0.0.1:{free_port()}", tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == "Note: README.md names no language and datasets: see --help for the options\n"
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["file"] for row in rows] == FILES
    assert [row["bytes"] for row in rows[1:]] == [(folder / name).stat().st_size for name in FILES[1:]]
    assert "\nlicense: mit\n" in rows[0]["content"]
    assert len(rows[0]["content"].encode()) == rows[0]["bytes"]


def test_a_dry_run_at_a_terminal_shows_the_card(folder: Path) -> None:
    result = CliRunner().invoke(main, ["publish", str(folder), "me/dry", "--dry-run", "--onnx", "--format", "table"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["file", *FILES, "model.onnx"]
    assert lines[5:7] == ["", "---"]
    assert "# Speech emotion" in lines
    assert not (folder / "README.md").exists()


def test_the_command_line_says_where_it_is(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "speech_emotion_vit", "publish", folder, "me/told", "--message", "First"],
        env=environment(hub.url, tmp_path, HF_TOKEN=TOKEN),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["repo_id"], told["revision"]) == ("me/told", hub.repositories["me/told"].commit)
    assert sorted(told["files"]) == FILES
    assert hub.repositories["me/told"].messages == ["First"]


def test_what_the_hub_does_not_take_is_one_line_with_a_remedy(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.repositories["me/public"] = Repository(files={})
    hub.repositories["me/busy"] = Repository(files={}, status=501)
    hub.repositories["me/contended"] = Repository(files={}, status=412)
    cases = {
        "somebody else changes it at the moment: try again": sending(folder, "me/contended"),
        "the token may not write for others": sending(folder, "others/model"),
        "is there already, and public: nothing was sent": sending(folder, "me/public", private=True),
        '"license" must be one of [...]': sending(folder, "me/odd", {"license": "unheard-of"}),
        "the server is in trouble (status 501): try again later": sending(folder, "me/busy"),
    }
    answers = finish(start_worker(hub.url, tmp_path, HF_TOKEN=TOKEN), *cases.values())
    for said, answer in zip(cases, answers, strict=True):
        assert answer["error"] == "PublishError"
        assert said in answer["message"]
        assert answer["message"].isprintable()
    assert hub.repositories["me/public"].files == {}
    assert hub.repositories["me/public"].commit == MAIN
    (strange,) = finish(start_worker(hub.url, tmp_path, HF_TOKEN="hf_strange"), sending(folder, "me/new"))
    assert "the token is not valid" in strange["message"]
    (nobody,) = finish(start_worker(hub.url, tmp_path), sending(folder, "me/new"))
    assert "nobody is logged in: run hf auth login" in nobody["message"]
    (offline,) = finish(start_worker(hub.url, tmp_path, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1"), sending(folder, "me/new"))
    assert "switched off by HF_HUB_OFFLINE" in offline["message"]
    closed = f"http://127.0.0.1:{free_port()}"
    (away,) = finish(start_worker(closed, tmp_path, HF_TOKEN=TOKEN), sending(folder, "me/new"))
    assert "check the network" in away["message"]
    assert "me/new" not in hub.repositories


@pytest.mark.parametrize("name", ["model", "me/a--b", "me/" + "x" * 200, "a/b/c", "../up", "me/x.git"])
def test_a_name_the_hub_does_not_allow(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        publish(folder, name, dry_run=True)
    assert len(str(caught.value)) < 400


def test_what_does_not_load_is_not_sent(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config.json and no model.safetensors"):
        publish(tmp_path, "me/empty", dry_run=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-2:] = np.float16("nan").tobytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(WeightsError, match="NaN"):
        publish(tmp_path, "me/broken", dry_run=True)


def test_a_saved_model_loads_again_and_keeps_its_card(tmp_path: Path, classifier: EmotionClassifier) -> None:
    saved = classifier.save(tmp_path / "first")
    assert sorted(path.name for path in saved.iterdir()) == FILES
    again = EmotionClassifier(saved)
    assert again.config == classifier.config
    assert again.predict(CLIPS[0]).probabilities == classifier.predict(CLIPS[0]).probabilities
    card = saved / "README.md"
    card.write_text(card.read_text().replace("# Speech emotion", "# My voices"))
    again.facts = CardFacts(license="mit")
    text = (again.save(tmp_path / "second") / "README.md").read_text()
    assert "# My voices" in text
    assert ModelCard(text).data.license == "mit"
    with pytest.raises(ConfigError, match="cannot be made"):
        classifier.save(card / "below")
