"""The command line: one module per command; what a command needs is imported when it runs."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import click

from ..errors import ConfigError, SpeechEmotionError, one_line, printable
from ._signals import stoppable
from ._streams import error_line

# The line of each command in `--help`; its module is imported only when it is called.
COMMANDS = {
    "predict": "Tell the emotion in audio files.",
    "explain": "Draw the network's attention over time.",
    "fit": "Fit a model to your own labels.",
    "train": "Train teacher and student on a corpus.",
    "evaluate": "Score a model on a corpus.",
    "models": "List, describe, download and verify models.",
    "convert": "Turn an official checkpoint into safetensors.",
    "export": "Write a model as one ONNX file.",
    "demo": "Serve a page to try a model with a microphone or a file.",
    "publish": "Send a model folder to the Hugging Face Hub.",
    "doctor": "Check this installation and print how to repair it.",
}


class _Group(click.Group):
    """Turn errors of this package and of the system into one line on stderr and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        if sys.stderr is None:  # closed: progress and errors go nowhere
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, until the end
        with _one_line_errors():  # --help and --version are printed here
            if sys.stdout is None:  # the next file would get its descriptor, and the messages of decoders
                raise ConfigError("standard output is closed: redirect it to a file, or to /dev/null")
            if isinstance(sys.stdout, io.TextIOWrapper):  # some names cannot be encoded; \udce9 is valid JSON
                sys.stdout.reconfigure(errors="backslashreplace")
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        with _one_line_errors(), stoppable():
            return super().invoke(ctx)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except SpeechEmotionError as error:
        raise click.ClickException(error_line(error)) from error
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise click.ClickException("this needs torch, which is not installed: pip install torch") from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has closed the pipe; click ends quietly
            raise
        _give_up_unwritten()
        where = printable(str(error.filename or "standard output or a file"))
        message = f"{where}: cannot be read or written ({one_line(error)}): check permissions and space there"
        raise click.ClickException(message) from error


def _give_up_unwritten() -> None:
    """Discard the rest for a standard output that cannot be written: Python would fail at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="speech-emotion-vit")
def main() -> None:
    """Tell the emotion in speech.

    \b
    speech-emotion-vit predict clip.wav          one file, or many, or folders
    speech-emotion-vit explain clip.wav -o x.png attention over time
    speech-emotion-vit models list               the models there are
    speech-emotion-vit fit DIR -o my-model       your own labels
    speech-emotion-vit train --dataset savee     teacher, matching, student
    speech-emotion-vit doctor                    when something does not work
    """
