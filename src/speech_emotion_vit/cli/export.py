"""``speech-emotion-vit export``."""

from __future__ import annotations

import click

from ._options import download_option, format_option, revision_option
from ._tables import echo_record


@click.command("export")
@click.argument("model", metavar="M")
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False), metavar="F", help="File to write.")
@click.option("--int8", is_flag=True, help="Store matrices with 8 bits per value: half the size.")
@revision_option
@download_option
@format_option
def command(model: str, output: str, int8: bool, revision: str | None, cache_dir: str | None, form: str | None) -> None:
    """Write a model as one ONNX file: a clip of any length in, probabilities and seconds of speech out.

    M is a published name, a folder, a .safetensors file, or a Hub repository org/repo. In any ONNX runtime, the file
    computes what predict does for mono samples at 16 kHz, with speech detection and windows; labels are in its
    metadata. The export needs neither torch nor onnx. examples/onnx_predict.py shows how to use the file.

    \b
    Examples:
      speech-emotion-vit export base --output base.onnx
      speech-emotion-vit export models/my-model --output small.onnx --int8
    """
    from ..backends.export import export_onnx

    path = export_onnx(model, output, int8=int8, revision=revision, cache_dir=cache_dir)
    weights = "int8" if int8 else "float32"
    echo_record({"path": str(path), "bytes": path.stat().st_size, "model": model, "weights": weights}, form)
