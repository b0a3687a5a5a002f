"""Being stopped: by Ctrl-C, by ``kill``, by a terminal that is closed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import click

_REQUESTS = ("SIGTERM", "SIGHUP")  # to end, which by themselves would end it without a word and leave files behind


class Stopped(BaseException):
    """The system asks this process to end; like KeyboardInterrupt, it passes every ``except Exception``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let what is stopped in the block tidy up, say so in one line, and end with 128 and the signal's number.

    Whoever knows more, what is done and how to go on, puts it into the ``args`` of the exception.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != owner:  # a process that was forked, which has nothing to say
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    replaced = []
    with contextlib.suppress(ValueError):  # only the main thread may set them
        for number in (getattr(signal, name) for name in _REQUESTS if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:  # else somebody, nohup for one, has other plans
                signal.signal(number, stop)
                replaced.append(number)
    try:
        yield
    except (KeyboardInterrupt, Stopped) as stopped:
        number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
        name = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        click.echo(": ".join((name, *map(str, stopped.args))), err=True)
        raise SystemExit(128 + number) from None
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
