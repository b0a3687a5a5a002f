"""``speech-emotion-vit doctor``."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from ..errors import printable
from ._tables import columns_of, table_width, wrapped

# Each optional distribution: its name, its module, the extra that installs it, its purpose.
_EXTRAS = (
    ("av", "av", "formats", "m4a, aac, webm"),
    ("matplotlib", "matplotlib", "plot", "pictures"),
    ("pandas", "pandas", "frame", "data frames"),
    ("onnxruntime", "onnxruntime", "onnx", "ONNX backend"),
    ("scikit-learn", "sklearn", "train", "training"),
    ("accelerate", "accelerate", "train", "training"),
    ("audiomentations", "audiomentations", "train", "training"),
    ("tensorboard", "tensorboard", "train", "training"),
)


class Check(NamedTuple):
    """One line of the report."""

    state: str
    """``ok``, ``optional`` (missing, and only needed for some things) or ``BROKEN``."""
    what: str
    found: str
    fix: str = ""


@click.command("doctor")
def command() -> None:
    """Check this installation: versions, devices, decoders, cache and bundled models.

    Every line that is not ok ends with the remedy. The exit status is 1 if something essential is broken.

    \b
    Example:
      speech-emotion-vit doctor
    """
    checks = [*_versions(), *_devices(), *_decoders(), *_extras(), *_cache(), *_models()]
    width = max(len(check.what) for check in checks)
    indent = 8 + 2 + width + 2
    for check in checks:
        line = f"{check.state:<8}  {check.what:<{width}}  {wrapped(printable(check.found), table_width(), indent)}"
        if check.fix:
            fix = printable(check.fix)
            line += "  ->"
            fits = columns_of(line.rsplit("\n")[-1]) + 1 + columns_of(fix) <= table_width()
            line += f" {fix}" if fits else f"\n{' ' * 10}{wrapped(fix, table_width(), 10)}"
        click.echo(line)
    if any(check.state == "BROKEN" for check in checks):
        raise SystemExit(1)


def _versions() -> Iterator[Check]:
    from importlib import metadata  # it loads email

    yield Check("ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    needed = ("speech-emotion-vit", "numpy", "soundfile", "soxr", "huggingface-hub", "safetensors", "msgspec")
    for name in (*needed, "click", "tqdm"):
        try:
            yield Check("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Check("BROKEN", name, "not installed", f"pip install {name}")


def _devices() -> Iterator[Check]:
    from importlib import metadata  # it loads email

    if importlib.util.find_spec("torch") is None:
        found = "not installed: training, explain, GPUs"
        runs = importlib.util.find_spec("onnxruntime") is not None  # else nothing runs a network
        yield Check("optional" if runs else "BROKEN", "torch", found, "pip install torch")
        return
    try:
        import torch
    except Exception as error:  # whatever a broken package raises
        yield Check(
            "BROKEN", "torch", f"cannot be imported: {_first_line(error)}", "pip install --force-reinstall torch"
        )
        return
    yield Check("ok", "torch", metadata.version("torch"))
    yield Check("ok", "cpu", f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Check("ok", f"cuda:{index}", torch.cuda.get_device_name(index))
    elif torch.version.cuda is None:
        yield Check("optional", "cuda", "this build of torch is for the CPU", "see pytorch.org for a CUDA build")
    else:
        yield Check(
            "optional",
            "cuda",
            f"torch is built for CUDA {torch.version.cuda}, no GPU is visible",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES",
        )


def _decoders() -> Iterator[Check]:
    try:
        import soundfile
    except Exception as error:  # whatever a broken package raises
        yield Check("BROKEN", "decoder", f"soundfile: {_first_line(error)}", "pip install --force-reinstall soundfile")
        return
    formats = soundfile.available_formats()
    names = [name for name in ("WAV", "FLAC", "OGG", "MP3", "AIFF") if name in formats]
    missing = [] if "MP3" in formats else ["pip install --upgrade soundfile"]
    yield Check("ok", "decoder", f"{soundfile.__libsndfile_version__}: {', '.join(names)}", *missing)


def _extras() -> Iterator[Check]:
    for name, module_name, extra, purpose in _EXTRAS:
        install = f"pip install 'speech-emotion-vit[{extra}]'"
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError:
            yield Check("optional", name, f"not installed: {purpose}", install)
        except Exception as error:  # whatever a broken package raises
            mend = f"pip install --force-reinstall {name}"
            yield Check("optional", name, f"cannot be imported: {_first_line(error)}", mend)
        else:
            yield Check("ok", name, f"{getattr(module, '__version__', '')}: {purpose}")


def _cache() -> Iterator[Check]:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE
    except ModuleNotFoundError:
        return  # reported above
    except Exception as error:  # whatever a broken package raises
        mend = "pip install --force-reinstall huggingface-hub"
        yield Check("BROKEN", "cache", f"huggingface_hub: {_first_line(error)}", mend)
        return
    folder = Path(HF_HUB_CACHE)
    existing = next(parent for parent in (folder, *folder.parents) if os.path.exists(parent))  # False where closed
    if os.access(existing, os.W_OK):
        yield Check("ok", "cache", f"{folder}{' (offline by HF_HUB_OFFLINE)' if HF_HUB_OFFLINE else ''}")
    else:
        yield Check("optional", "cache", f"{folder} cannot be written", "set HF_HOME to a folder of yours")


def _models() -> Iterator[Check]:
    from ..errors import WeightsError
    from ..weights.manifest import load_manifest
    from ..weights.resolve import verify_model

    reinstall = f"{Path(sys.executable).name} -m pip install --force-reinstall speech-emotion-vit"
    try:
        manifest = load_manifest()
    except WeightsError as error:
        yield Check("BROKEN", "manifest", str(error), reinstall)
        return
    for name, entry in manifest.models.items():
        if entry.file is None:
            continue
        default = " (default)" if name == manifest.default else ""
        try:
            verify_model(name)
        except WeightsError as error:
            yield Check("BROKEN", name, str(error), reinstall)
        else:
            yield Check("ok", name, f"bundled, SHA-256 verified{default}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
