"""README and the pages of the site say what is: their parts are generated, their code runs, their commands exist."""

from __future__ import annotations

import csv
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import soundfile
import soxr

from helpers import CLIPS, ROOT, speech
from speech_emotion_vit import __version__
from speech_emotion_vit.cli import main
from speech_emotion_vit.weights.manifest import load_manifest

sys.path.insert(0, str(ROOT / "tools"))

import pages
import tables
import update_readme

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
assert len(DOCS) > 15
TEXTS = {path: path.read_text(encoding="utf-8") for path in (README, ROOT / "CONTRIBUTING.md", *DOCS)}


def fences(text: str, *languages: str) -> list[str]:
    """Return the code blocks of a page that are in one of the languages."""
    blocks = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [code for language, code in blocks if language in languages]


WITH_PYTHON = [path for path, text in TEXTS.items() if fences(text, "python")]
assert README in WITH_PYTHON
COMMANDS = sorted(
    {
        line.strip()
        for text in TEXTS.values()
        for block in fences(text, "")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("speech-emotion-vit ")
    }
)
assert len(COMMANDS) > 15


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_readme_is_what_its_generator_makes_of_it() -> None:
    assert update_readme.rendered(TEXTS[README]) == TEXTS[README], "run python tools/update_readme.py"


def test_the_readme_is_short_and_its_links_work_from_pypi() -> None:
    text = TEXTS[README]
    assert len(text.split()) <= 900
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.mark.parametrize("path", DOCS, ids=relative)
def test_a_page_can_be_filled(path: Path) -> None:
    filled = pages.on_page_markdown(TEXTS[path])
    assert not re.search(r"<!-- (table|include|readme):", filled)
    assert filled.startswith(("# ", "---"))


@pytest.mark.parametrize("name", ["models", "results no-such-topic", "help no-such-command"])
def test_a_table_that_cannot_be_made_stops_the_build(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PURPOSES", {})
    with pytest.raises(SystemExit, match=r"PURPOSES|no-such"):
        pages.on_page_markdown(f"<!-- table: {name} -->")


def test_a_number_without_its_command_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {**dict.fromkeys(tables.COLUMNS, "1"), "topic": "paper", "command": ""}
    with (tmp_path / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, tables.COLUMNS)
        writer.writeheader()
        writer.writerow(row)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.csv")
    with pytest.raises(SystemExit, match="line 2: no command"):
        tables.table("results paper")


def test_every_topic_of_the_results_has_its_place() -> None:
    topics = {row["topic"] for row in tables.read_results()}
    placed = {name for text in TEXTS.values() for name in re.findall(r"<!-- table: results ([\w-]+) -->", text)}
    assert topics == placed


@pytest.mark.parametrize("path", WITH_PYTHON, ids=relative)
def test_the_python_of_a_page_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", speech(3.0), 16_000)
    soundfile.write("call.flac", speech(6.0), 16_000)
    Path("recordings").mkdir()
    for index in range(3):
        soundfile.write(f"recordings/{index}.wav", speech(1.0 + index), 16_000)
    Path("examples").symlink_to(CLIPS[0].parents[1])
    live = soxr.resample(speech(5.1), 16_000, 48_000)
    names: dict[str, Any] = {"chunks": [live[start : start + 4800] for start in range(0, len(live), 4800)]}
    for number, code in enumerate(fences(TEXTS[path], "python")):
        exec(compile(code, f"{path.name}, example {number}", "exec"), names)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_of_a_page_is_understood(line: str) -> None:
    arguments = shlex.split(line, comments=True)[1:]
    command: click.Command = main
    parent: click.Context | None = None
    while isinstance(command, click.Group):
        parent = click.Context(command, info_name=arguments[0], parent=parent)
        found = command.get_command(parent, arguments.pop(0))
        assert found is not None, f"no such command: {line}"
        command = found
    missing = ""
    context = click.Context(command)
    try:
        context = command.make_context(command.name, list(arguments), parent=parent)
    except click.BadParameter as error:
        missing = error.message
    assert not missing or "does not exist" in missing, line  # a file of the reader's
    named = context.params.get("model") or (context.params.get("m") if command.name == "export" else None)
    if named and not re.search(r"[/.]|NAME|^my-", named):
        assert named in load_manifest().models, line


@pytest.mark.parametrize("page", ["reliability.md", "tried.md"])
def test_what_keeps_a_promise_is_there(page: str) -> None:
    text = TEXTS[ROOT / "docs" / page]
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    defined = set(re.findall(r"def (test_\w+)", "\n".join(sources.values())))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 10
    assert named - defined == set()
    files = re.findall(r"`(test_\w+\.py)`", text)
    assert [name for name in files if name not in {path.name for path in sources}] == []


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
