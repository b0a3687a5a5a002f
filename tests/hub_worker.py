"""Runs in a process of its own, because the Hub's client reads HF_ENDPOINT when it is imported.

A request per line of JSON on stdin, an answer per line on stdout.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from speech_emotion_vit.errors import SpeechEmotionError
from speech_emotion_vit.publish import publish
from speech_emotion_vit.weights import resolve
from speech_emotion_vit.weights.card import CardFacts
from speech_emotion_vit.weights.manifest import load_manifest


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["call"] == "publish":
        return published(request)
    manifest = request.pop("manifest", None)
    if manifest is not None:
        request["manifest"] = load_manifest(manifest)
    try:
        resolved = getattr(resolve, request.pop("call"))(**request)
    except SpeechEmotionError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {
        "name": resolved.name,
        "revision": resolved.revision,
        "weights": str(resolved.weights),
        "sha256": resolved.sha256,
        "labels": list(resolved.config.labels),
        "torch": "torch" in sys.modules,
    }


def published(request: dict[str, Any]) -> dict[str, Any]:
    """Send a folder; only `facts` and what else `publish` takes beside it may be in the request."""
    facts = CardFacts(**{name: as_tuple(value) for name, value in request.pop("facts", {}).items()})
    try:
        done = publish(request.pop("model"), request.pop("repo_id"), facts=facts, **request.pop("options", {}))
    except SpeechEmotionError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {**vars(done), "files": dict(done.files), "torch": "torch" in sys.modules}


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
