"""The generated parts of README.md and of the site: models, scores, results, speed, and what commands print.

Nothing in them is typed by hand: models and scores come from the manifest, results from docs/results.csv, speed from
docs/benchmarks.md, help texts and answers from the program itself. `update_readme.py` writes them into README.md,
`pages.py` into the pages of the site while it is built.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from click.testing import CliRunner

from speech_emotion_vit.cli import main as command_line
from speech_emotion_vit.weights.manifest import Manifest, Metric, WeightEntry, load_manifest

PROGRAM = "speech-emotion-vit"
ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.csv"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"

# Why somebody would choose a model, in the order of the tables. A model of the manifest must have its line here.
PURPOSES = {
    "base": "anybody, businesses too",
    "small": "phones, browsers, many streams at once",
    "research": "research: all corpora, eight emotions",
    "crema-d-paper": "the paper's network, as published",
    "emodb-paper": "the paper's network with a head for EmoDB",
    "savee-paper": "the paper's network with a head for SAVEE",
}

NUMBERS = ["value", "low", "high", "clips", "speakers"]
COLUMNS = ["topic", "what", "corpus", "protocol", "measure", *NUMBERS, "command", "commit"]
Row = dict[str, str]

NBSP, HYPHEN = "\u00a0", "\u2011"  # a space and a hyphen at which no line ends

# What the paper says is better, beside what it is compared with: values of the column `what`.
STUDENT, TEACHER = "paper's student alone", "paper's teacher"
CLAIMS = {
    "patches of 128 x 1, not 16 x 16": (STUDENT, f"{STUDENT}, patches of 16 x 16"),
    "coordinates": (TEACHER, f"{TEACHER} without coordinates"),
    "convolutional stem": (TEACHER, f"{TEACHER} without convolutional stem"),
    "coordinates and stem": (TEACHER, f"{TEACHER} without coordinates and stem"),
    "teacher and matching": ("paper's student, with teacher and matching", STUDENT),
}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(value: float, interval: tuple[float, float] | None = None) -> str:
    """Return a share in percent, with its interval."""
    ends = f"{NBSP}({100 * interval[0]:.1f}{NBSP}to{NBSP}{100 * interval[1]:.1f})" if interval else ""
    return f"{100 * value:.1f}{ends}"


# Models ----------------------------------------------------------------------------------------------------------


def ordered_models(manifest: Manifest) -> list[WeightEntry]:
    """Return the models in the order of `PURPOSES`, or exit where one has no line there."""
    if missing := sorted(set(manifest.models) - set(PURPOSES)):
        sys.exit(f"tools/tables.py: say in PURPOSES why somebody would choose {', '.join(missing)}")
    return [manifest.models[name] for name in PURPOSES if name in manifest.models]


def models_table() -> str:
    """Return a line per model: what it is for, what it knows, how big it is, and how it does on new voices.

    Of several scores under a protocol it is their range; an empty cell is a score that nobody measured.
    """
    manifest = load_manifest()
    rows = []
    for entry in ordered_models(manifest):

        def recall(protocol: str, metrics: tuple[Metric, ...] = entry.metrics) -> str:
            found = [m.value for m in metrics if (m.name, m.protocol) == ("UA", protocol) and m.split != "validation"]
            shown = sorted({round(100 * value) for value in found})
            return " to ".join(map(str, dict.fromkeys((shown[0], shown[-1])))) if shown else ""

        name = f"**`{entry.name}`** (default)" if entry.name == manifest.default else f"`{entry.name}`"
        size = f"{entry.size_bytes / 1e6:.1f} MB" if entry.backbone is None else f"on `{entry.backbone}`"
        labels = str(len(entry.config.labels))
        rows.append([name, PURPOSES[entry.name], labels, size, recall("speaker"), recall("corpus")])
    header = ["model", "for", "emotions", "size", f"new voices, UA{NBSP}%", f"new corpora, UA{NBSP}%"]
    while not any(row[-1] for row in rows):  # no model has such a score yet
        header.pop()
        rows = [row[:-1] for row in rows]
    return markdown(header, rows)


def scores_table() -> str:
    """Return a line per model and part of a corpus, with all its scores in percent."""
    manifest = load_manifest()
    rows = []
    for entry in ordered_models(manifest):
        groups: dict[tuple[object, ...], dict[str, Metric]] = {}
        for metric in entry.metrics:
            key = (metric.protocol, metric.split, metric.clips, metric.speakers, metric.note)
            groups.setdefault(key, {})[metric.name] = metric
        for (protocol, split, clips, speakers, note), found in groups.items():
            where = f"{split}, {clips} clips of {speakers} speakers" + (f"; {note}" if note else "")
            cells = [percent(found[name].value) if name in found else "" for name in ("WA", "macro-F1", "ECE")]
            ua = percent(found["UA"].value, found["UA"].interval) if "UA" in found else ""
            rows.append([f"`{entry.name}`", f"`{protocol}`", where, ua, *cells])
    return markdown(["model", "protocol", "scored on", "UA (95 % interval)", "WA", "macro-F1", "ECE"], rows)


def licenses_table() -> str:
    """Return a line per model: labels, what it has learnt from, and under which licence it may be used."""
    rows = [
        [f"`{entry.name}`", ", ".join(entry.config.labels), entry.trained_on, entry.license]
        for entry in ordered_models(load_manifest())
    ]
    return markdown(["model", "labels", "trained on", "licence"], rows)


# Results ---------------------------------------------------------------------------------------------------------


def read_results() -> list[Row]:
    """Return the rows of docs/results.csv, or exit with a line that names what is wrong with one."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != COLUMNS:
        sys.exit(f"{RESULTS.name}: the columns must be {','.join(COLUMNS)}")
    for number, row in enumerate(rows, 2):
        numbers = [row[name] for name in NUMBERS if row[name]]
        if not row["value"] or not all(re.fullmatch(r"-?\d+(\.\d+)?", text) for text in numbers):
            sys.exit(f"{RESULTS.name}, line {number}: value, interval, clips and speakers must be numbers: {numbers}")
        if missing := [name for name in ("topic", "what", "measure", "command", "commit") if not row[name]]:
            sys.exit(f"{RESULTS.name}, line {number}: no {', '.join(missing)}")
    return rows


def score(row: Row) -> str:
    """Return a value with its interval."""
    return row["value"] + (f"{NBSP}({row['low']}{NBSP}to{NBSP}{row['high']})" if row["low"] else "")


def topic_table(topic: str) -> str:
    """Return a line per subject, corpus and protocol, a column per measure, and below the commands behind them."""
    rows = [row for row in read_results() if row["topic"] == topic]
    if not rows:
        sys.exit(f"{RESULTS.name}: no row has the topic {topic!r}")
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    commands = list(dict.fromkeys((row["command"], row["commit"]) for row in rows))
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("what", "corpus", "protocol", "clips", "speakers"))
        groups.setdefault(key, {})[row["measure"]] = row
    lines = []
    for (what, corpus, protocol, clips, speakers), found in groups.items():
        cells = [score(found[measure]) if measure in found else "" for measure in measures]
        behind = dict.fromkeys(str(1 + commands.index((row["command"], row["commit"]))) for row in found.values())
        size = f"{clips} of {speakers}" if clips else ""
        lines.append(
            [what, corpus.replace("-", HYPHEN), f"`{protocol}`" if protocol else "", size, *cells, ", ".join(behind)]
        )
    header = ["what", "corpus", "protocol", "clips, speakers", *measures, "command"]
    used = [index for index in range(len(header)) if any(line[index] for line in lines)]
    table = markdown([header[index] for index in used], [[line[index] for index in used] for line in lines])
    listed = [f"    {number}. at {commit}: `{command}`" for number, (command, commit) in enumerate(commands, 1)]
    return "\n".join([table, "", '??? note "The commands, each with the commit to check out for it"', "", *listed])


def claims_table() -> str:
    """Return a line per claim of the paper, corpus and protocol: with what is said to help, and without it."""
    rows = [row for row in read_results() if (row["topic"], row["measure"]) == ("paper", "UA")]
    by_key = {(row["what"], row["corpus"], row["protocol"]): row for row in rows}
    lines = []
    for claim, (with_it, without) in CLAIMS.items():
        for what, corpus, protocol in by_key:
            if what == with_it and (other := by_key.get((without, corpus, protocol))):
                row = by_key[what, corpus, protocol]
                difference = float(row["value"]) - float(other["value"])
                lines.append([claim, corpus, f"`{protocol}`", score(row), score(other), f"{difference:+.1f}"])
    return markdown(["better with", "corpus", "protocol", "with", "without", "difference"], lines)


# Speed -----------------------------------------------------------------------------------------------------------


def speed_table() -> str:
    """Return three lines of docs/benchmarks.md: this package's default, and two that people use today."""
    part = BENCHMARKS.read_text(encoding="utf-8").split("## Latency\n\n", 1)[1].split("\n\n", 1)[0]
    header, _, *lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in part.splitlines()]
    column = header.index("2.5 s")
    times = {line[0].replace("*", ""): line[column].split(" / ")[0] for line in lines}
    first = next(iter(times))  # the benchmark begins with the default
    wanted = [first, "opensmile eGeMAPS functionals", "wav2vec2-base classifier"]
    seconds = {name: float(times[name].replace(",", "")) for name in wanted}
    rows = [[name, times[name], f"{seconds[name] / seconds[first]:.1f}x"] for name in wanted]
    return markdown(["2.5 s of speech, from path to answer", "ms", "takes"], rows)


# What the program prints -----------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    """Return what a command prints, run at the root of the repository."""
    with at_root():
        ran = CliRunner().invoke(command_line, arguments, prog_name=PROGRAM, terminal_width=80)
    if ran.exit_code:
        sys.exit(f"{PROGRAM} {' '.join(arguments)}: {ran.output}")
    return ran.stdout


@contextlib.contextmanager
def at_root() -> Iterator[None]:
    """Work in the root of the repository for a while."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        yield
    finally:
        os.chdir(before)


def predict_table() -> str:
    """Return what `predict examples/clips` prints, and how many of the answers are right."""
    printed = run("predict", "examples/clips", "--format", "table")
    rows = [line.split() for line in printed.splitlines()[1:]]
    right = [Path(row[0]).stem for row in rows if Path(row[0]).stem == row[1]]
    named = f" ({', '.join(right)})" if right else ""
    return (
        f"```text\n{printed}```\n\nThe file name is what the actor meant: {len(right)} of {len(rows)} are right{named}."
    )


def python_block(text: str) -> str:
    """Return the first Python example of a document with what it prints."""
    code = text.split("```python\n", 1)[1].split("```", 1)[0]
    printed = io.StringIO()
    with at_root(), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return f"```python\n{code}```\n\n```text\n{printed.getvalue()}```"


def help_text(command: str) -> str:
    """Return what a command says to --help, 80 columns wide."""
    return f"```text\n{run(*command.split(), '--help')}```"


TABLES: dict[str, Callable[[], str]] = {
    "models": models_table,
    "scores": scores_table,
    "licenses": licenses_table,
    "claims": claims_table,
    "speed": speed_table,
    "predict": predict_table,
}


def table(name: str) -> str:
    """Return a generated part by its name: of `TABLES`, ``results TOPIC`` or ``help COMMAND``."""
    kind, _, rest = name.partition(" ")
    if name in TABLES:
        return TABLES[name]()
    if kind == "results":
        return topic_table(rest)
    if kind == "help":
        return help_text(rest)
    sys.exit(f"there is no generated part named {name!r}: there are {', '.join(TABLES)}, results TOPIC, help COMMAND")
