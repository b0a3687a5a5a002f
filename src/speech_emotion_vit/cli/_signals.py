"""End in order when Ctrl-C, ``kill`` or a closed terminal stops the command."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import click

_REQUESTS = ("SIGTERM", "SIGHUP")  # by default they end a process at once and leave its temporary files


class Stopped(BaseException):
    """A signal asked this process to end; like KeyboardInterrupt, ``except Exception`` does not catch it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let the block clean up when a signal stops it, print one line, and exit with 128 plus the signal's number.

    Code that knows what is done and how to continue puts it into the ``args`` of the exception.
    """
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != owner:  # a forked process ends without a message
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Stopped(number)

    replaced = []
    with contextlib.suppress(ValueError):  # only the main thread may set them
        for number in (getattr(signal, name) for name in _REQUESTS if hasattr(signal, name)):
            if signal.getsignal(number) is signal.SIG_DFL:  # else another handler is set, for instance by nohup
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
