"""What a file is that is no recording, by how it begins, and what to do about it."""

from __future__ import annotations

import json
import re

HEAD = 1024  # bytes, as many as `what_it_is` looks at

# How it begins -> what it is and what helps. No recording begins so, whatever a decoder may find further on.
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer, not the recording: git lfs pull",
    b"/annex/objects/": "a git-annex pointer, not the recording: git annex get",
    b"\x1f\x8b": "compressed by gzip: gunzip it first, or pass gzip.open(path)",
    b"BZh": "compressed by bzip2: bunzip2 it first, or pass bz2.open(path)",
    b"\xfd7zXZ\0": "compressed by xz: unxz it first, or pass lzma.open(path)",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard: unzstd it first",
    b"PK\x03\x04": "a ZIP archive: unzip it and pass the files in it",
    b"PK\x05\x06": "a ZIP archive with nothing in it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it and pass the files in it",
    b"Rar!\x1a\x07": "a RAR archive: unpack it and pass the files in it",
    b"%PDF-": "a PDF document: pass the recording",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a Microsoft Office document: pass the recording",
    b"\x80\x04\x95": "a Python pickle, which is not opened: pass the array in it with sampling_rate=",
    b"\x80\x05\x95": "a Python pickle, which is not opened: pass the array in it with sampling_rate=",
    b"\x89PNG": "a picture (PNG): pass the recording",
    b"\xff\xd8\xff": "a picture (JPEG): pass the recording",
    b"GIF8": "a picture (GIF): pass the recording",
    b"\x93NUMPY": "a numpy array: pass numpy.load(path) with sampling_rate=",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file: read the array in it and pass that with sampling_rate=",
    b"PAR1": "a Parquet table: read the audio in it and pass that",
    b"ARROW1": "an Arrow table: read the audio in it and pass that",
    b"SQLite format 3": "an SQLite database: read the audio in it and pass that",
    b"\x7fELF": "a program: pass the recording",
    b"MThd": "MIDI, which is notes and no sound: render it to WAV first",
    b"#EXTM3U": "a playlist: pass the files that it names",
    b"[playlist]": "a playlist: pass the files that it names",
    b"ffconcat": "a list of files: pass the files that it names",
}
_MARKUP = re.compile(rb"<(!doctype\s+html|html|head|body|title|meta|script|center|h1)\b", re.IGNORECASE)
_SHOWN = 60  # characters of a text that a message repeats
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]{40,}\s+)*[A-Za-z0-9+/_-]{40,}={0,2}(?:\s+[A-Za-z0-9+/_-]+={0,2})?")


def what_it_is(head: bytes) -> str | None:
    """Return what a file is that begins with `head` and is certainly no recording, and what helps; else None."""
    for beginning, what in _BEGINNINGS.items():
        if head.startswith(beginning):
            return what
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a picture (WebP): pass the recording"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"avif"):
        return "a picture (HEIF or AVIF): pass the recording"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it and pass the files in it"
    return None


def what_it_may_be(head: bytes) -> str | None:
    """Return what a file seems to be that no decoder knows; None if that cannot be said."""
    if not head:
        return "empty, without a single byte: fetch or record it again"
    if not head.strip(b"\0"):
        return "zeros alone, as a copy or a download that was broken off leaves them: fetch it again"
    if head[4:8] == b"ftyp":
        return (
            "an MP4 whose index of samples is missing or damaged, as of a recording that was broken off: "
            "fetch or record it again"
        )
    text = _text(head)
    if text is None:
        return None
    if text.startswith("<") and _MARKUP.search(text.encode("utf-8", "replace")):
        return "a web page (HTML), such as a server's error or login page: look at it, and fetch the recording again"
    if text.startswith("<"):
        return f"XML ({_cut(text)}), such as a server's error: look at it, and fetch the recording again"
    if text.startswith(("{", "[")) and _is_json(text):
        return f"JSON ({_cut(text)}), such as a server's answer: look at it, and fetch the recording again"
    if is_base64(text):
        return "text in base64: pass base64.b64decode(text)"
    return f"text ({_cut(text)}): pass the recording"


def is_base64(text: str) -> bool:
    """Return whether a long text is base64, or a data URL of it."""
    if text.startswith("data:") and ";base64," in text[:100]:
        return True
    words = text[:HEAD].strip()
    return bool(_BASE64.fullmatch(words)) and all(re.search(kind, words) for kind in ("[a-z]", "[A-Z]", "[0-9]"))


def _text(head: bytes) -> str | None:
    """Return the beginning of a text without what precedes its first word; None of what is no text."""
    for coding in ("utf-16", "utf-8"):
        if coding == "utf-16" and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            continue
        try:
            text = head.decode(coding, "ignore" if coding == "utf-16" else "strict")
        except UnicodeDecodeError as error:
            if error.start < len(head) - 3:  # not just a character that is cut
                continue
            text = head[: error.start].decode(coding)
        text = text.lstrip("\ufeff").strip()
        if text and all(c.isprintable() or c.isspace() for c in text):
            return text
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return bool(re.match(r'(\[\s*)*(\{\s*"|\{\s*\}|\[\s*["\d\]-])', text))  # it may be longer than its beginning
    return True


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
