"""The package's shape: what is public, and which room may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import speech_emotion_vit
from helpers import ROOT

PACKAGE = ROOT / "src" / "speech_emotion_vit"

# Imports only point down; siblings only inside a folder.
FLOORS = {
    "errors": 0,
    "config": 1,
    "containers": 1,
    "contour_bands": 1,
    "extras": 1,
    "files": 1,
    "filters": 1,
    "onnx_proto": 1,
    "prediction": 2,
    "decoding": 2,
    "audio": 3,
    "frontend": 2,
    "models": 2,
    "manifest": 2,
    "tensors": 2,
    "backend": 2,
    "downloads": 2,
    "checkpoint": 3,
    "convert": 3,
    "hub": 3,
    "onnx_graph": 3,
    "onnx_backend": 4,
    "segments": 4,
    "torch_backend": 4,
    "batches": 5,
    "explain": 5,
    "export": 5,
    "stream": 5,
    "classifier": 6,
    "training": 6,
    "cli": 7,
    "__main__": 8,
}
WITHOUT_TORCH = {
    "errors",
    "config",
    "containers",
    "contour_bands",
    "extras",
    "files",
    "filters",
    "onnx_proto",
    "onnx_graph",
    "onnx_backend",
    "export",
    "prediction",
    "decoding",
    "audio",
    "manifest",
    "backend",
    "downloads",
    "hub",
    "segments",
    "batches",
    "explain",
    "stream",
    "classifier",
    "cli",
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """The rooms of this package and the other modules a file imports, with whether that is at its top."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body)) | {id(n) for s in tree.body if isinstance(s, ast.Try) for n in s.body}
    depth = len(path.relative_to(PACKAGE).parts)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            outside = node.level == depth
            target = (node.module or "").split(".")[0] if outside else room(path)
            names = [target] if target else [alias.name for alias in node.names]
            found += [(f".{name}", id(node) in top) for name in names]
        elif isinstance(node, ast.ImportFrom):
            found.append(((node.module or "").split(".")[0], id(node) in top))
        elif isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], id(node) in top) for alias in node.names]
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")
assert len(FILES) > 20


def test_every_file_has_a_floor() -> None:
    assert {room(path) for path in FILES} == set(FLOORS)


def test_imports_only_point_down() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in FILES
        for name, _ in imports(path)
        if name.startswith(".") and name[1:] != room(path) and FLOORS[name[1:]] >= FLOORS[room(path)]
    ]
    assert wrong == []


def test_nobody_imports_the_root() -> None:
    assert [str(path) for path in FILES if any(name == "speech_emotion_vit" for name, _ in imports(path))] == []


def test_light_rooms_import_no_torch_at_their_top() -> None:
    checked = [path for path in FILES if room(path) in WITHOUT_TORCH]
    heavy = [str(path) for path in checked if ("torch", True) in imports(path)]
    assert checked
    assert heavy == []


def test_importing_the_package_is_light_and_using_it_resolves() -> None:
    code = (
        "import sys, speech_emotion_vit as s\n"
        "assert not {'torch', 'numpy', 'soundfile'} & set(sys.modules)\n"
        "assert s.EmotionClassifier.__module__ == 'speech_emotion_vit.classifier'\n"
        "assert 'torch' not in sys.modules\n"
        "assert s.LogMel.__module__ == 'speech_emotion_vit.frontend'\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_public_surface_is_what_all_says() -> None:
    assert speech_emotion_vit.__all__ == sorted(speech_emotion_vit.__all__)
    modules = {room(path) for path in FILES} | {"annotations", "TYPE_CHECKING", "Any", "importlib"}
    visible = {name for name in dir(speech_emotion_vit) if not name.startswith("_")} - modules
    assert visible == set(speech_emotion_vit.__all__)
    for name in speech_emotion_vit.__all__:
        assert getattr(speech_emotion_vit, name).__doc__


def test_public_errors_are_one_tree() -> None:
    errors = [getattr(speech_emotion_vit, name) for name in speech_emotion_vit.__all__ if name.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(error, speech_emotion_vit.SpeechEmotionError) for error in errors)
    assert issubclass(speech_emotion_vit.AudioError, ValueError)
    assert issubclass(speech_emotion_vit.DownloadError, OSError)
