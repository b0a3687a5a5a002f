"""A user's own recordings: one sub-folder per label, or a table."""

from __future__ import annotations

import csv
from pathlib import Path

from ....errors import DatasetError, one_line
from .base import PARTS, Utterance, as_utf8, audio_files, checked

LAYOUT = "one sub-folder of audio per label, or a CSV file with the columns path,label and perhaps speaker,split"


def read_folder(source: Path) -> list[Utterance]:
    """Read one sub-folder per label, or a CSV file: ``path,label`` and optionally ``speaker``, ``sentence``, ``split``.

    Paths in the CSV are relative to its folder. A sub-folder's audio may lie deeper; its speakers are unknown.

    Raises:
        DatasetError: there is nothing to read, a column or a file is missing, a path occurs twice, or a split is none.
    """
    if source.is_file():
        return checked(_read_csv(source), source, LAYOUT)
    utterances = []
    for path in audio_files(source):
        parts = path.relative_to(source).parts
        if len(parts) > 1:
            name = as_utf8(path.relative_to(source).with_suffix("").as_posix())
            utterances.append(Utterance(id=name, path=path, label=parts[0], speaker=""))
    return checked(utterances, source, LAYOUT)


def _read_csv(source: Path) -> list[Utterance]:
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = set(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DatasetError(
            f"{source}: cannot be read as a table ({one_line(error)}): give a folder, or save the table as CSV in UTF-8"
        ) from error
    if missing := {"path", "label"} - columns:
        raise DatasetError(f"{source}: lacks the columns {sorted(missing)}: its first line must name path,label")
    utterances = []
    lines: dict[Path, int] = {}
    for line, row in rows:
        # A blank too many would be another voice, on the other side of a split.
        values = {name: (row.get(name) or "").strip() for name in ("path", "label", "speaker", "sentence", "split")}
        path = source.parent / values["path"]
        if not path.is_file():
            raise DatasetError(f"{source}: line {line}: no such file: {path}: paths are relative to the table's folder")
        if not values["label"]:
            raise DatasetError(f"{source}: line {line}: the label is empty: name it, or remove the line")
        if "split" in columns and values["split"] not in PARTS:
            raise DatasetError(
                f"{source}: line {line}: split is {values['split']!r}: write {', '.join(PARTS)} in every line, "
                "or leave the column out"
            )
        before = lines.setdefault(path.resolve(), line)
        if before != line:
            raise DatasetError(f"{source}: line {line}: {path} is the file of line {before}: keep one of the two")
        utterances.append(
            Utterance(
                id=as_utf8(Path(values["path"]).as_posix()),
                path=path,
                label=values["label"],
                speaker=values["speaker"],
                sentence=values["sentence"],
                part=values["split"],
            )
        )
    return utterances
