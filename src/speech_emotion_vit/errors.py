"""The exceptions of this package: one tree, so that one ``except`` catches everything it raises on purpose.

::

    SpeechEmotionError
    ├── AudioError      (ValueError)    audio that cannot be read or makes no sense
    ├── ConfigError     (ValueError)    an option or configuration value that is not allowed
    ├── WeightsError    (RuntimeError)  a model that cannot be found, read or used
    │   ├── IntegrityError              a file whose digest is not the announced one
    │   └── DownloadError (OSError)     a file that could not be fetched or stored
    ├── PublishError    (OSError)       a model that could not be sent to the Hub
    ├── DatasetError    (ValueError)    a corpus that is missing, incomplete, or split with a leak
    └── TrainingError   (RuntimeError)  a training run that cannot go on

Every message says what was wrong, the value that was wrong, and what to do about it, on one line.
"""

from __future__ import annotations

LONGEST_VALUE = 80  # characters of a value in a message


class SpeechEmotionError(Exception):
    """Base of every error this package raises on purpose."""


class AudioError(SpeechEmotionError, ValueError):
    """Audio that cannot be read, or that makes no sense as audio."""


class ConfigError(SpeechEmotionError, ValueError):
    """An option or a configuration value that is not allowed."""


class WeightsError(SpeechEmotionError, RuntimeError):
    """A model that cannot be found, read or used."""


class IntegrityError(WeightsError):
    """A file whose digest is not the announced one."""


class DownloadError(WeightsError, OSError):
    """A file that could not be fetched, or not be stored."""


class PublishError(SpeechEmotionError, OSError):
    """A model that could not be sent to the Hub."""


class DatasetError(SpeechEmotionError, ValueError):
    """A corpus that is missing or incomplete, or a split that leaks."""


class TrainingError(SpeechEmotionError, RuntimeError):
    """A training run that cannot start or go on."""


def printable(text: str) -> str:
    """Return `text` with everything escaped that would break a line or command a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def quoted(value: object) -> str:
    """Return a wrong value for a message: its `repr`, on one line and cut short."""
    try:
        text = printable(repr(value))
    except Exception:  # the class of the caller may fail here
        text = object.__repr__(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def one_line(error: BaseException) -> str:
    """Return the error's own words on one line, without a path or a trailing stop."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return printable(" ".join(str(text).split()).rstrip(".")) or type(error).__name__
