"""Count the results of a job, and print a summary at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import printable
from ..prediction import Prediction
from ..timeline import Timeline
from ._tables import clock

if TYPE_CHECKING:
    from ..errors import AudioError
    from ..model.config import FrontendConfig

LONG_SECONDS = 30.0  # longer recordings are better served by a timeline


class Tally:
    """Count the results of files.

    Args:
        files: their number.
        before: how many of them an earlier run has answered.
    """

    def __init__(self, files: int, before: int) -> None:
        self.files = files
        self.before = before
        self.answered = 0
        self.failed = 0
        self._speechless = 0
        self._long = 0  # files that are long
        self._longest = 0.0, ""  # seconds and name
        self._begin = time.monotonic()

    def add(self, name: str, result: Prediction | Timeline | AudioError) -> None:
        """Count one result."""
        if isinstance(result, Timeline):
            self.answered += 1
            self._speechless += not any(segment.speech for segment in result)
        elif isinstance(result, Prediction):
            self.answered += 1
            self._speechless += not result.speech
            if result.duration > LONG_SECONDS:
                self._long += 1
                self._longest = max(self._longest, (result.duration, name))
        else:
            self.failed += 1

    def closing(self, frontend: FrontendConfig, *, job: bool) -> Iterator[str]:
        """Yield the lines at the end: a summary of many files, and a note on long ones.

        Args:
            frontend: of the model.
            job: whether to print the summary even if nothing failed.
        """
        if self._long:
            seconds, name = self._longest
            which = printable(name)
            if self._long > 1:
                which = f"{self._long} files are longer than {LONG_SECONDS:g} s; {which}"
            if frontend.long_clips == "truncate":
                what = f"this model hears the first {frontend.window_seconds:g} s of {clock(seconds)}"
            else:
                count = math.ceil((seconds - frontend.window_seconds) / frontend.window_hop_seconds) + 1
                what = f"one answer for {clock(seconds)}, the mean over {count} windows"
            yield f"Note: {which}: {what}; --timeline has an answer for every moment"
        if self.files > 1 and (job or self.failed):
            kept = f", {self.before} done before" if self.before else ""
            yield (
                f"{self.files} files in {time.monotonic() - self._begin:.1f} s: {self.answered} answered{kept}, "
                f"{self.failed} failed, {self._speechless} without speech"
            )

    def interrupted(self, output: str | None, form: str) -> str:
        """Return the message of a stopped job."""
        done = f"{self.before + self.answered} of {self.files} files are done"
        if output is None:
            return done
        on = "; the same command with --resume goes on" if form in ("csv", "json", "jsonl") else ""
        return f"{done} and in {printable(output)}{on}" if self.before + self.answered else f"{done}{on}"
