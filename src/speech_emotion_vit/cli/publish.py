"""``speech-emotion-vit publish``."""

from __future__ import annotations

import click

from ..errors import printable
from ._options import format_option
from ._tables import echo_record, echo_rows, form_is_table


@click.command("publish")
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, file_okay=False))
@click.argument("repo_id", metavar="ORG/NAME")
@click.option("--dry-run", is_flag=True, help="Show what would be sent; no connection is made.")
@click.option("--onnx", is_flag=True, help="Send the ONNX file too, as model.onnx.")
@click.option("--private", is_flag=True, help="Make a private repository.")
@click.option("--revision", metavar="B", help="Branch to commit to, made if it does not exist.  [default: main]")
@click.option("--license", metavar="L", help="Licence as the Hub writes it: mit, cc-by-4.0, other.")
@click.option("--language", metavar="L", multiple=True, help="Language of the data, ISO 639: en. May be repeated.")
@click.option("--dataset", metavar="D", multiple=True, help="Training data. May be repeated.")
@click.option("--base-model", metavar="M", help="Model of the Hub that it was made from, org/name.")
@click.option("--message", metavar="T", help="Text of the commit.  [default: Upload a model of speech-emotion-vit]")
@format_option
def command(
    folder: str,
    repo_id: str,
    dry_run: bool,
    onnx: bool,
    private: bool,
    revision: str | None,
    license: str | None,
    language: tuple[str, ...],
    dataset: tuple[str, ...],
    base_model: str | None,
    message: str | None,
    form: str | None,
) -> None:
    """Send a model folder to the Hugging Face Hub, from which everybody can load it by its name.

    One commit sends config.json, model.safetensors and the model card README.md, and nothing else of FOLDER. If there
    is no README.md, it is made. Options on licence, language, data and base model go into the card's front matter,
    which the Hub reads. Log in first: hf auth login, or HF_TOKEN.

    \b
    Examples:
      speech-emotion-vit publish my-model org/name --dry-run
      speech-emotion-vit publish mine org/name --license mit --language en --onnx
      speech-emotion-vit predict clip.wav --model org/name
    """
    from ..publish import MESSAGE, publish
    from ..weights.card import CARD_FILE, CardFacts

    done = publish(
        folder,
        repo_id,
        onnx=onnx,
        private=private,
        revision=revision,
        facts=CardFacts(license=license, language=language, datasets=dataset, base_model=base_model),
        message=message or MESSAGE,
        dry_run=dry_run,
    )
    if done.missing:
        said = " and ".join(filter(None, [", ".join(done.missing[:-1]), done.missing[-1]]))
        click.echo(f"Note: {CARD_FILE} names no {said}: see --help for the options", err=True)
    if not dry_run:
        echo_record(
            {"repo_id": done.repo_id, "revision": done.commit, "url": done.url, "files": dict(done.files)}, form
        )
        return
    card = {CARD_FILE: done.card}
    rows = [{"file": name, "bytes": size, "content": card.get(name)} for name, size in done.files.items()]
    echo_rows(rows, form, columns=("file", "bytes"))
    if form_is_table(form):
        click.echo("\n".join(["", *map(printable, done.card.splitlines())]))
