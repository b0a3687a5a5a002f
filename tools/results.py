"""Fill the tables of docs/results.md from docs/results.csv, which has one row for every number that is quoted.

python tools/results.py          write them
python tools/results.py --check  exit 1 if they are out of date

A row says what was measured, under which protocol, the value with its interval, on how many clips of how many speakers,
and which command prints it at which commit. To quote a new number, add a row and run this.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

from speech_emotion_vit.files import whole_file

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "docs" / "results.csv"
TARGET = ROOT / "docs" / "results.md"
NUMBERS = ["value", "low", "high", "clips", "speakers"]
COLUMNS = ["topic", "what", "corpus", "protocol", "measure", *NUMBERS, "command", "commit"]
Row = dict[str, str]

# What the paper says is better, beside what it is compared with.
STUDENT, TEACHER = "paper's student alone", "paper's teacher"
CLAIMS = {
    "patches of 128 x 1, not 16 x 16": (STUDENT, f"{STUDENT}, patches of 16 x 16"),
    "coordinates": (TEACHER, f"{TEACHER} without coordinates"),
    "convolutional stem": (TEACHER, f"{TEACHER} without convolutional stem"),
    "coordinates and stem": (TEACHER, f"{TEACHER} without coordinates and stem"),
    "teacher and matching": ("paper's student, with teacher and matching", STUDENT),
}


def read_rows() -> list[Row]:
    """Return the rows of the table, or exit with a line that names what is wrong with one."""
    with SOURCE.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != COLUMNS:
        sys.exit(f"{SOURCE.name}: the columns must be {','.join(COLUMNS)}")
    for number, row in enumerate(rows, 2):
        numbers = [row[name] for name in NUMBERS if row[name]]
        if not all(re.fullmatch(r"-?\d+(\.\d+)?", text) for text in numbers) or not row["value"]:
            sys.exit(f"{SOURCE.name}, line {number}: value, interval, clips and speakers must be numbers: {numbers}")
        if missing := [name for name in ("topic", "what", "measure", "command", "commit") if not row[name]]:
            sys.exit(f"{SOURCE.name}, line {number}: no {', '.join(missing)}")
    return rows


def score(row: Row) -> str:
    """Return a value with its interval."""
    return row["value"] + (f" ({row['low']} to {row['high']})" if row["low"] else "")


def topic_table(rows: list[Row]) -> str:
    """Return a line per subject, corpus and protocol, a column per measure, and the commands behind the numbers."""
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    commands = list(dict.fromkeys((row["command"], row["commit"]) for row in rows))
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("what", "corpus", "protocol", "clips", "speakers"))
        groups.setdefault(key, {})[row["measure"]] = row
    lines = [
        f"| what | corpus | protocol | clips | {' | '.join(measures)} | command |",
        "|---" * (5 + len(measures)) + "|",
    ]
    for (what, corpus, protocol, clips, speakers), found in groups.items():
        cells = [score(found[measure]) if measure in found else "" for measure in measures]
        behind = dict.fromkeys(str(1 + commands.index((row["command"], row["commit"]))) for row in found.values())
        size = f"{clips} of {speakers} speakers" if clips else ""
        shown = f"`{protocol}`" if protocol else ""
        lines.append(f"| {what} | {corpus} | {shown} | {size} | {' | '.join(cells)} | {', '.join(behind)} |")
    listed = [f"{number}. at {commit}: `{command}`" for number, (command, commit) in enumerate(commands, 1)]
    return "\n".join([*lines, "", '??? note "The commands"', "", *(f"    {line}" for line in listed)])


def claims_table(rows: list[Row]) -> str:
    """Return a line per claim of the paper, corpus and protocol: with what is said to help, and without it."""
    by_key = {(row["what"], row["corpus"], row["protocol"]): row for row in rows if row["measure"] == "UA"}
    lines = ["| better with | corpus, protocol | with | without | difference |", "|---" * 5 + "|"]
    for claim, (with_it, without) in CLAIMS.items():
        for what, corpus, protocol in by_key:
            if what == with_it and (other := by_key.get((without, corpus, protocol))):
                row = by_key[what, corpus, protocol]
                difference = float(row["value"]) - float(other["value"])
                lines.append(
                    f"| {claim} | {corpus}, `{protocol}` | {score(row)} | {score(other)} | {difference:+.1f} |"
                )
    return "\n".join(lines)


def rendered(text: str, rows: list[Row]) -> str:
    """Return the page with its tables made anew; every topic of the rows must have its place there."""
    tables = {"claims": claims_table(rows)}
    for topic in dict.fromkeys(row["topic"] for row in rows):
        tables[topic] = topic_table([row for row in rows if row["topic"] == topic])
    for name, content in tables.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, new=content: f"{match[1]}\n{new}\n\n{match[2]}", text)
        if count != 1:
            sys.exit(f"{TARGET.name} has {count} places named {name}, expected 1")
    return text


def main(arguments: list[str]) -> None:
    """Write the page, or check it."""
    before = TARGET.read_text(encoding="utf-8")
    after = rendered(before, read_rows())
    if "--check" in arguments:
        sys.exit(
            f"{TARGET.name} is out of date: python {Path(__file__).parent.name}/results.py" if before != after else 0
        )
    with whole_file(TARGET) as temporary:
        temporary.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
