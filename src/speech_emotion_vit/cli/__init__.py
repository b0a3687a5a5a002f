"""The command line: one module per command; what a command needs is imported when it runs."""

from __future__ import annotations

import click

from ..errors import SpeechEmotionError
from . import convert, doctor, evaluate, explain, export, models, predict, train


class _Group(click.Group):
    """Turn this package's errors into one line on stderr and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SpeechEmotionError as error:
            raise click.ClickException(" ".join(str(error).split())) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="speech-emotion-vit")
def main() -> None:
    """Tell the emotion in speech.

    \b
    speech-emotion-vit predict clip.wav          one file, or many, or folders
    speech-emotion-vit explain clip.wav -o x.png where in time the network looked
    speech-emotion-vit models list               the models there are
    speech-emotion-vit train --dataset savee     reproduce the training
    speech-emotion-vit doctor                    when something does not work
    """


for _module in (predict, explain, train, evaluate, models, convert, export, doctor):
    main.add_command(_module.command)
