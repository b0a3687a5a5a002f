"""``speech-emotion-vit demo``."""

from __future__ import annotations

import contextlib

import click

from ..errors import printable
from ._options import device_option, model_option


@click.command("demo")
@model_option
@device_option
@click.option("--host", default="127.0.0.1", show_default=True, metavar="H", help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65_535), metavar="N", help="[default: the first free from 7860 on]")
@click.option("--open", "browser", is_flag=True, help="Open the page in a browser.")
@click.option("--share", is_flag=True, help="Make the page public through Gradio's servers.")
def command(model: str | None, device: str, host: str, port: int | None, browser: bool, share: bool) -> None:
    """Serve a page to try a model: a microphone or a file in, probabilities, a timeline and an explanation out.

    By default only this machine can use it, and nothing is sent anywhere. With --host 0.0.0.0 others in the network can
    use it, and with --share their recordings go through Gradio's servers. Ctrl-C ends it and deletes the recordings.
    Needs Gradio: pip install 'speech-emotion-vit[demo]'.

    \b
    Examples:
      speech-emotion-vit demo --open
      speech-emotion-vit demo --model my-model --port 8000
    """
    from ..demo import launch

    def ready(address: str) -> None:
        click.echo(f"{printable(address)}: open it in a browser; Ctrl-C ends it")

    with contextlib.suppress(KeyboardInterrupt):
        launch(model, device=device, host=host, port=port, share=share, browser=browser, ready=ready)
