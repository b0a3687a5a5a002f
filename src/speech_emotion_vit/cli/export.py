"""``speech-emotion-vit export``."""

from __future__ import annotations

import click

from ._rows import echo_record, format_option


@click.command("export", short_help="Write a model as one ONNX file.")
@click.argument("model", metavar="M")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), metavar="F", help="File to write.")
@click.option("--int8", is_flag=True, help="Store matrices with 8 bits a value: half of the size.")
@click.option("--revision", metavar="R", help="Branch, tag or commit of a Hub repository.")
@click.option("--cache-dir", metavar="D", help="Folder of downloads.  [default: the Hub client's cache]")
@format_option
def command(model: str, output: str, int8: bool, revision: str | None, cache_dir: str | None, form: str | None) -> None:
    """Write a model as one ONNX file: a clip of any length in, probabilities and seconds of speech out.

    M is a published name, a folder, a .safetensors file, or a Hub repository org/repo. The file does all that predict
    does of mono samples at 16 kHz, speech detector and windows too, in any ONNX runtime; labels are in its metadata.
    Neither torch nor onnx is needed. examples/onnx_predict.py shows how.

    \b
    Examples:
      speech-emotion-vit export base --output base.onnx
      speech-emotion-vit export models/my-model --output small.onnx --int8
    """
    from ..backends.export import export_onnx

    path = export_onnx(model, output, int8=int8, revision=revision, cache_dir=cache_dir)
    weights = "int8" if int8 else "float32"
    echo_record({"path": str(path), "bytes": path.stat().st_size, "model": model, "weights": weights}, form)
