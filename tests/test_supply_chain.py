"""What the package is made of: no code from strangers is run, and the versions it names are those that are tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from helpers import ROOT

FILES = sorted((ROOT / "src").rglob("*.py"))
assert len(FILES) > 30
BUILTINS = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "subprocess", "ctypes", "imp", "runpy"}
SHELL = {"os.system", "os.popen", "os.execv", "os.spawnv"}


def calls(tree: ast.AST) -> list[tuple[str, dict[str | None, ast.expr]]]:
    """Name, dotted once at most, and keyword arguments of every call."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.id if isinstance(function, ast.Name) else ""
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                name = f"{function.value.id}.{function.attr}"
            found.append((name, {keyword.arg: keyword.value for keyword in node.keywords}))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_nothing_runs_what_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    assert not {name.split(".")[0] for name in imported} & MODULES
    for name, given in calls(tree):
        assert name not in BUILTINS | SHELL
        assert "trust_remote_code" not in given
        assert not (name == "np.load" and "allow_pickle" in given)
        if name == "torch.load":
            assert path.name == "convert.py"
            assert ast.unparse(given["weights_only"]) == "True"


def test_the_one_place_that_loads_a_pickle_is_seen() -> None:
    found = [name for path in FILES for name, _ in calls(ast.parse(path.read_text())) if name == "torch.load"]
    assert len(found) == 1


def test_the_tested_oldest_versions_are_the_promised_ones() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci" / "oldest.txt").read_text(), re.MULTILINE))
    project = (ROOT / "pyproject.toml").read_text()
    promised = dict(re.findall(r'"([\w-]+)>=([\d.]+)', project[project.index("dependencies = [") :]))
    base = dict(
        re.findall(r'^    "([\w-]+)>=([\d.]+)', project.split("dependencies = [")[1].split("]")[0], re.MULTILINE)
    )
    assert len(base) == 11
    assert base.keys() <= pinned.keys()
    for name, version in pinned.items():
        assert re.fullmatch(rf"{re.escape(promised[name])}(\.0)*", version), name
