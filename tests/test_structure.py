"""The package's shape: what is public, and what starts without torch. `lint-imports` holds the floors."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import speech_emotion_vit
from helpers import ROOT

PACKAGE = ROOT / "src" / "speech_emotion_vit"

# What may import torch at its top, by folder or module; everything else must start without it.
WITH_TORCH = {
    "backends/torch.py",
    "model/frame_vit.py",
    "model/frontend.py",
    "model/layers.py",
    "model/rollout.py",
    "model/vit.py",
    "training",
    "weights/convert.py",
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")
assert len(FILES) > 20


def imports_torch(path: Path) -> bool:
    """Whether torch is imported at the top of a file."""
    top = ast.parse(path.read_text()).body
    top += [node for statement in top if isinstance(statement, ast.Try) for node in statement.body]
    return any(
        (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "torch" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "torch")
        for node in top
    )


def test_light_rooms_import_no_torch_at_their_top() -> None:
    heavy = {path.relative_to(PACKAGE).as_posix() for path in FILES if imports_torch(path)}
    assert {"training" if name.startswith("training/") else name for name in heavy} == WITH_TORCH


def test_importing_the_package_is_light_and_using_it_resolves() -> None:
    code = (
        "import sys, speech_emotion_vit as s\n"
        "assert not {'torch', 'numpy', 'soundfile'} & set(sys.modules)\n"
        "assert s.EmotionClassifier.__module__ == 'speech_emotion_vit.classifier'\n"
        "assert 'torch' not in sys.modules\n"
        "assert s.LogMel.__module__ == 'speech_emotion_vit.model.frontend'\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_surface_is_what_all_says() -> None:
    assert speech_emotion_vit.__all__ == sorted(speech_emotion_vit.__all__)
    modules = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} | {
        "annotations",
        "TYPE_CHECKING",
        "Any",
        "importlib",
    }
    visible = {name for name in dir(speech_emotion_vit) if not name.startswith("_")} - modules
    assert visible == set(speech_emotion_vit.__all__)
    for name in speech_emotion_vit.__all__:
        assert getattr(speech_emotion_vit, name).__doc__


def test_public_errors_are_one_tree() -> None:
    errors = [getattr(speech_emotion_vit, name) for name in speech_emotion_vit.__all__ if name.endswith("Error")]
    assert len(errors) == 9
    assert all(issubclass(error, speech_emotion_vit.SpeechEmotionError) for error in errors)
    assert issubclass(speech_emotion_vit.AudioError, ValueError)
    assert issubclass(speech_emotion_vit.DownloadError, OSError)
