"""A user's own recordings: folders named after labels, or a table."""

from __future__ import annotations

import csv
import dataclasses
import logging
import re
from pathlib import Path
from reprlib import repr as quoted

from ....errors import DatasetError, one_line
from ..labels import is_emotion, unify
from .base import Utterance, as_utf8, audio_files, checked, named

LAYOUT = "one sub-folder of audio per label, or a CSV file with the columns path,label and perhaps speaker,split"
DELIMITERS = ",;\t|"
COLUMNS = {  # and other usual names for them
    "path": ("file", "filename", "file_name", "filepath", "file_path", "audio", "audio_path", "audio_filepath", "wav"),
    "label": ("emotion", "class", "target", "category", "emo"),
    "speaker": ("speaker_id", "spk", "actor", "subject", "participant", "client_id"),
    "sentence": ("text", "transcript"),
    "split": ("set", "subset", "part", "partition"),
}
PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "devel", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}

_SPEAKER = re.compile(r"(actor|speaker|spk|subject|participant|person|session|user|id)[ _-]?\d+", re.IGNORECASE)
_log = logging.getLogger(__name__)


def read_folder(source: Path) -> list[Utterance]:
    """Read folders of audio, or a CSV file.

    Folders are named after labels: ``angry/1.wav``. They may be inside folders of a split (``train/angry/1.wav``) or of
    speakers (``Actor_01/angry/1.wav``), or have folders of speakers inside them (``angry/Actor_01/1.wav``).

    A table has the columns ``path,label`` and optionally ``speaker``, ``sentence``, ``split``, or other names in
    `COLUMNS`. Its paths are relative to its folder.

    Labels that differ only in case or blanks are unified, which is logged.

    Raises:
        DatasetError: there is nothing to read, folders are of speakers alone, a column or a file is missing, a path
            occurs twice, or the name of a split is unknown.
    """
    utterances = _read_table(source) if source.is_file() else _read_folders(source)
    return checked(_with_one_spelling(utterances, source), source, LAYOUT)


def _with_one_spelling(utterances: list[Utterance], source: Path) -> list[Utterance]:
    try:
        chosen = unify(utterance.label for utterance in utterances)
    except DatasetError as error:
        raise DatasetError(f"{source}: {error}") from error
    if merged := sorted(label for label, one in chosen.items() if label != one):
        _log.warning("one label in several spellings: %s", named([f"{label} is {chosen[label]}" for label in merged]))
    return [dataclasses.replace(utterance, label=chosen[utterance.label]) for utterance in utterances]


def _read_folders(source: Path) -> list[Utterance]:
    found = [(path, path.relative_to(source).parts) for path in audio_files(source)]
    found = [(path, parts) for path, parts in found if len(parts) > 1]
    folders = [parts[:-1] for _, parts in found]
    level = _label_level(source, folders)
    above = {names[0] for names in folders} if level else set()
    parts_above = all(_part(name) for name in above)
    below = [names[level + 1] for names in folders if len(names) > level + 1]
    speakers_below = bool(below) and len(below) == len(folders) and all(map(_SPEAKER.fullmatch, below))
    utterances = []
    for path, parts in found:
        speaker = parts[level + 1] if speakers_below else parts[0] if level and not parts_above else ""
        utterances.append(
            Utterance(
                id=as_utf8(path.relative_to(source).with_suffix("").as_posix()),
                path=path,
                label=parts[level],
                speaker=as_utf8(speaker),
                part=_part(parts[0]) if level and parts_above else "",
            )
        )
    return utterances


def _label_level(source: Path, folders: list[tuple[str, ...]]) -> int:
    """Return which folder of the paths `folders` is the label: the first, or the one below speakers or a split.

    Raises:
        DatasetError: the folders are of speakers or of a split, and there are none of labels below them.
    """
    first = sorted({names[0] for names in folders})
    if not first or any(map(is_emotion, first)):
        return 0
    deep = all(len(names) > 1 for names in folders)
    kind = "a split" if all(map(_part, first)) else "speakers" if all(map(_SPEAKER.fullmatch, first)) else ""
    if kind and not deep:
        raise DatasetError(
            f"{source}: the folders {named(first)} are of {kind}, not of labels, and hold clips without a folder of a "
            "label: put each clip into one, or give a CSV file with the columns path,label,speaker"
        )
    if deep and (kind or all(is_emotion(names[1]) for names in folders)):
        return 1
    return 0


def _part(name: str) -> str:
    return PART_NAMES.get(name.strip().casefold(), "")


def _read_table(source: Path) -> list[Utterance]:
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(DELIMITERS, key=first.count))
            header, rows = list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DatasetError(
            f"{source}: cannot be read as a table ({one_line(error)}): give a folder, or save the table as CSV in UTF-8"
        ) from error
    columns = {name: column for name in COLUMNS if (column := _column(name, header)) is not None}
    if missing := [name for name in ("path", "label") if name not in columns]:
        raise DatasetError(
            f"{source}: lacks the columns {missing}: its first line must name path,label, but holds "
            f"{quoted(first.strip())}"
        )
    utterances = []
    lines: dict[Path, int] = {}
    for line, row in rows:
        # Without strip, an extra blank would make another speaker, perhaps in another part of the split.
        values = {name: (row.get(columns.get(name, "")) or "").strip() for name in COLUMNS}
        path = _place(source.parent, values["path"])
        if not path.is_file():
            raise DatasetError(f"{source}: line {line}: no such file: {path}: paths are relative to the table's folder")
        if not values["label"]:
            raise DatasetError(f"{source}: line {line}: the label is empty: name it, or remove the line")
        if "split" in columns and not _part(values["split"]):
            raise DatasetError(
                f"{source}: line {line}: split is {quoted(values['split'])}: write train, validation or test in every "
                "line, or leave the column out"
            )
        before = lines.setdefault(path.resolve(), line)
        if before != line:
            raise DatasetError(f"{source}: line {line}: {path} is the file of line {before}: keep one of the two")
        utterances.append(
            Utterance(
                id=as_utf8(values["path"].replace("\\", "/")),
                path=path,
                label=values["label"],
                speaker=values["speaker"],
                sentence=values["sentence"],
                part=_part(values["split"]),
            )
        )
    return utterances


def _column(name: str, header: list[str]) -> str | None:
    """Return the name of a column in `header`: its own name first, in any case, then the other usual names."""
    plain = {column.strip().casefold().replace(" ", "_").replace("-", "_"): column for column in reversed(header)}
    return next((plain[each] for each in (name, *COLUMNS[name]) if each in plain), None)


def _place(folder: Path, name: str) -> Path:
    """Return the file of a table: relative to its `folder`, with ``~`` or the backslashes of Windows if need be."""
    path = folder / Path(name).expanduser()
    if not path.is_file() and "\\" in name:
        path = folder / Path(name.replace("\\", "/")).expanduser()
    return path
