"""What people pass as audio: taken apart into a file or an array with its rate, or answered with what works.

Nothing is guessed: what can only be one thing is taken, and everything else is an error that holds a line of code.
"""

from __future__ import annotations

import array
import contextlib
import glob
import inspect
import os
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import AudioError, ConfigError, printable, quoted
from .kinds import is_base64
from .suffixes import AUDIO_SUFFIXES

MOST_CHANNELS = 64  # of an array; more are something else, such as a batch or a picture
_LONGEST_NAME = 200  # characters
_SAMPLES = ("array", "raw", "waveform", "samples", "audio_array")  # keys of dicts, by datasets, transformers, pyannote
_RATES = ("sampling_rate", "sample_rate", "samplerate", "frame_rate", "rate", "sr", "fs")
_FILES = ("bytes", "path", "file", "filename", "audio")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
ENCODED = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"caff")  # how files of audio begin
_NUMBER = (int, float, np.integer, np.floating)


def describe(source: object) -> str:
    """Return a short name of `source` for messages."""
    if isinstance(source, (str, os.PathLike)):
        name = printable(os.fsdecode(source))
        return name if len(name) <= _LONGEST_NAME else f"{name[:80]}...{name[83 - _LONGEST_NAME :]}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    with contextlib.suppress(AttributeError, TypeError, RuntimeError):  # a class has none, a nested tensor no sizes
        return f"<{type(source).__name__} {list(source.shape)}>"  # type: ignore[attr-defined]
    called = getattr(source, "name", None)
    if isinstance(called, (str, os.PathLike)):
        return describe(called)
    size = f" of {len(source)}" if isinstance(source, (list, tuple, dict)) else ""
    return f"<{type(source).__name__}{size}>"


def is_encoded(source: object) -> bool:
    """Return whether `source` is a file or the content of one, which has a rate of its own."""
    if isinstance(source, soundfile.SoundFile):
        return False
    if isinstance(source, memoryview):
        return source.format in ("B", "b", "c")
    return isinstance(source, (str, os.PathLike, bytes, bytearray)) or hasattr(source, "read")


def unpack(source: Any, name: str) -> tuple[Any, Any]:
    """Return what `source` holds, and its rate, None of files and of what does not know it.

    That is a file or its content, an array, a tensor, or a file opened by soundfile.

    Raises:
        AudioError: it holds no audio, or more than one piece of it.
    """
    if isinstance(source, (str, os.PathLike)):
        return _located(source, name), None
    if is_encoded(source):
        if inspect.iscoroutinefunction(getattr(source, "read", None)):
            raise AudioError(f"{name}: is read by await: pass upload.file, or await upload.read()")
        return source, None
    if isinstance(source, soundfile.SoundFile):
        return source, source.samplerate
    if isinstance(source, np.ndarray) or _is_tensor(source):
        return _array_of(source, name), None
    if isinstance(source, Mapping):
        return _of_mapping(source, name)
    if isinstance(source, tuple) and (pair := _pair(source)) is not None:
        samples, _ = unpack(pair[0], name)
        return samples, pair[1]
    for words in ("sample_rate", "sampling_rate"):  # torchcodec's AudioSamples, and others of that kind
        if hasattr(source, words) and _is_array(getattr(source, "data", None)):
            return source.data, getattr(source, words)
    if callable(getattr(source, "get_all_samples", None)):  # torchcodec's AudioDecoder, which datasets gives
        return unpack(source.get_all_samples(), name)
    if hasattr(source, "raw_data") and hasattr(source, "frame_rate"):  # pydub
        kind = {1: np.int8, 2: np.int16, 4: np.int32}.get(source.sample_width)
        if kind is None:
            raise AudioError(f"{name}: {source.sample_width} bytes a sample: pass segment.set_sample_width(2)")
        return np.frombuffer(source.raw_data, kind).reshape(-1, source.channels).T, source.frame_rate
    return _of_others(source, name), None


def _of_others(source: Any, name: str) -> npt.NDArray[Any]:
    """Return the samples in a list, a column of a table, or an array of another library."""
    if isinstance(source, (array.array, memoryview)):
        return np.asarray(source)
    if isinstance(source, (list, tuple)):
        return _of_list(source, name)
    if hasattr(source, "columns"):
        if all(getattr(kind, "kind", "O") in "iuf" for kind in getattr(source, "dtypes", ["O"])):
            raise AudioError(f"{name}: is a table: if its columns are channels, pass table.to_numpy()")
        raise AudioError(f"{name}: is a table: call predict_batch(table[{quoted(_column(source))}])")
    if callable(getattr(source, "to_numpy", None)):
        samples: npt.NDArray[Any] = _array_of(source.to_numpy(), name)
        return samples
    if hasattr(source, "__array__") and hasattr(source, "shape"):
        try:
            return np.asarray(source)
        except Exception as error:  # of a stranger's class
            raise AudioError(f"{name}: cannot be made an array ({quoted(error)}): pass a numpy array") from error
    raise AudioError(f"{name}: cannot read audio from {type(source).__name__}: {_instead(source)}")


def _instead(source: Any) -> str:
    if source is None or type(source).__name__ in ("NAType", "NaTType"):
        return "nothing was recorded, or a value is missing"
    if isinstance(source, (float, np.floating)) and np.isnan(source):
        return "nothing was recorded, or a value is missing"
    if isinstance(source, (bool, *_NUMBER)):
        return "a number alone is none: pass all samples, numpy.array(samples, 'float32'), with sampling_rate="
    if hasattr(source, "readframes"):
        return "pass the path of the file instead of what wave.open returns"
    if isinstance(getattr(source, "content", None), bytes):
        return "pass response.content"
    if hasattr(source, "to_ndarray"):
        return "pass frame.to_ndarray() with sampling_rate="
    if hasattr(source, "__iter__"):
        return "for several pieces call predict_batch"
    return "pass a path, bytes, a binary file object, an array or a tensor"


def _located(source: str | os.PathLike[str], name: str) -> str | os.PathLike[str]:
    """Return the path that is meant: a file's address, and a home folder, are resolved."""
    if not isinstance(path := os.fspath(source), str):
        return source
    if match := _ADDRESS.match(path):
        if match[1].lower() == "file":
            address = urllib.parse.urlsplit(path)
            if address.netloc not in ("", "localhost"):
                raise AudioError(f"{name}: is on another machine: copy the file here")
            return urllib.request.url2pathname(address.path)
        if not os.path.lexists(path):
            how = (
                "predict(urllib.request.urlopen(address).read())"
                if match[1].lower() in ("http", "https", "ftp")
                else "download it and pass the path"
            )
            raise AudioError(f"{name}: is an address, and nothing is fetched from there: {how}")
    if path.startswith("~") and not os.path.lexists(path):
        return os.path.expanduser(path)
    return source


def missing(path: str) -> str:
    """Return what to say of a path where nothing is."""
    bare = path.strip().strip("'\"")
    if not bare:
        return "the name is empty: pass a path"
    if bare != path and os.path.lexists(bare):
        return f"no such file, but {quoted(bare)} is there: leave out what surrounds the name"
    if is_base64(path):
        return "is text in base64 and no path: pass base64.b64decode(text)"
    if os.path.islink(path):
        return "no such file: it is a link to what is not there"
    if "\\" in path and os.path.lexists(turned := path.replace("\\", "/")):
        return f"no such file, but {quoted(turned)} is there: write / for \\"
    if glob.has_magic(path):
        with contextlib.suppress(re.error, OSError, ValueError):
            count = len(glob.glob(path, recursive=True))
            if count or "*" in path or "?" in path:  # a bracket alone may be in a name
                files = "1 file matches" if count == 1 else f"{count} files match"
                return f"is a pattern, {files}: call predict_batch(sorted(glob.glob(pattern, recursive=True)))"
    return "no such file: check the path"


def _of_mapping(source: Mapping[Any, Any], name: str) -> tuple[Any, Any]:
    rates = [key for key in _RATES if key in source]
    for key in _SAMPLES:
        value = source.get(key)
        if value is not None and rates:
            samples, own = unpack(value, name)
            return samples, source[rates[0]] if own is None else own
    for key in _FILES:
        value = source.get(key)
        if value is None:
            continue
        if isinstance(value, (list, np.ndarray)) and not rates:
            raise AudioError(f"{name}: holds columns: call predict_batch(columns[{quoted(key)}])")
        samples, own = unpack(value, name)
        return samples, source[rates[0]] if rates and own is None and not is_encoded(samples) else own
    keys = ", ".join(quoted(key) for key in list(source)[:6]) or "no keys"
    inside = next((key for key, value in source.items() if _is_piece(value)), None)
    how = "{'array': samples, 'sampling_rate': 16000}" if inside is None else f"the item [{quoted(inside)}] of it"
    raise AudioError(f"{name}: no audio under the keys of this dict ({keys}): pass {how}")


def _of_list(source: list[Any] | tuple[Any, ...], name: str) -> npt.NDArray[Any]:
    first = source[0] if source else None
    if first is None:
        raise AudioError(f"{name}: holds no samples")
    if is_encoded(first) and len(source) == 2 and isinstance(source[1], _NUMBER):
        raise AudioError(f"{name}: files carry their own rate: pass {describe(first)} alone")
    if isinstance(first, (str, bytes, os.PathLike, Mapping)) or _is_array(first):
        raise AudioError(f"{name}: holds {len(source)} pieces of audio: call predict_batch")
    try:
        found = np.asarray(source)
    except (ValueError, TypeError) as error:  # lists of unequal length
        raise AudioError(f"{name}: is no array of samples: for several pieces call predict_batch") from error
    if found.dtype.kind == "i":
        raise AudioError(f"{name}: integers without a width: pass numpy.array(samples, 'int16') with sampling_rate=")
    if found.dtype.kind != "f":
        raise AudioError(f"{name}: holds {quoted(first)}, which is no sample: pass numbers from -1 to 1")
    return found


def _array_of(source: Any, name: str) -> Any:
    """Return an array or a tensor of samples; refuse one of paths, or of the bytes of a file."""
    if not isinstance(source, np.ndarray):
        return source
    if source.dtype.kind in "UTO" and source.size:
        if source.ndim == 0 and isinstance(source.item(), (str, bytes, os.PathLike)):
            return _located(source.item(), name)
        if isinstance(source.flat[0], (str, os.PathLike)):
            raise AudioError(f"{name}: holds {source.size} paths: call predict_batch")
    if source.dtype == np.uint8 and source.ndim == 1 and source[:4].tobytes().startswith(ENCODED):
        raise AudioError(f"{name}: holds the bytes of a file: pass array.tobytes()")
    return source


def _pair(source: Any) -> tuple[Any, Any] | None:
    """Return samples and rate of a pair of both, in whichever order: scipy, gradio; librosa, soundfile, torchaudio."""
    if not isinstance(source, (tuple, list)) or len(source) != 2:
        return None
    for samples, rate in (source, source[::-1]):
        if isinstance(rate, _NUMBER) and not isinstance(rate, bool) and (_is_array(samples) or _is_numbers(samples)):
            return samples, rate
    return None


def _is_array(source: object) -> bool:
    return isinstance(source, (np.ndarray, array.array)) or _is_tensor(source)


def _is_tensor(source: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _is_numbers(source: object) -> bool:
    return isinstance(source, (list, tuple)) and bool(source) and isinstance(source[0], (*_NUMBER, list))


def _is_piece(source: object) -> bool:
    """Return whether `source` is one piece of audio, and no list of such."""
    if is_encoded(source) or isinstance(source, (soundfile.SoundFile, array.array)) or _pair(source) is not None:
        return True
    if isinstance(source, Mapping):
        return any(key in source for key in _RATES) and any(key in source for key in _SAMPLES)
    if hasattr(source, "get_all_samples") or (hasattr(source, "raw_data") and hasattr(source, "frame_rate")):
        return True
    return any(hasattr(source, words) for words in ("sample_rate", "sampling_rate")) and hasattr(source, "data")


def _is_piece_or_array(source: object) -> bool:
    return _is_piece(source) or _is_tensor(source) or (isinstance(source, np.ndarray) and source.dtype.kind in "iuf")


def several(audios: Any) -> Iterable[Any]:
    """Return what is to be iterated over for the pieces in `audios`.

    Raises:
        ConfigError: it is one piece, a table, or nothing of the kind.
    """
    name = describe(audios)
    one = ConfigError(f"{name} is one piece of audio: pass a list of such, or call predict")
    if _is_piece(audios):
        raise one
    if isinstance(audios, Mapping) and audios and all(map(_is_piece_or_array, audios.values())):
        raise ConfigError(f"{name} holds a piece of audio under each key: pass list(dict.values())")
    if hasattr(audios, "columns") or isinstance(audios, Mapping):
        what = "a table" if hasattr(audios, "columns") else "a dict"
        raise ConfigError(f"{name} is {what}: pass one of its columns, such as table[{quoted(_column(audios))}]")
    if isinstance(audios, (list, tuple)) and audios and isinstance(audios[0], (float, np.floating)):
        raise one
    if getattr(audios, "ndim", None) in (0, 1) and not _is_tensor(audios):
        kind = np.asarray(audios).dtype.kind if isinstance(audios, np.ndarray) else getattr(audios.dtype, "kind", "O")
        if kind in "biufc" or audios.ndim == 0:
            raise one
    elif getattr(audios, "ndim", 2) < 2:
        raise one
    if not hasattr(audios, "__iter__") and not hasattr(audios, "__getitem__"):
        raise ConfigError(f"audios must be a list of pieces of audio, not {quoted(audios)}")
    return audios  # type: ignore[no-any-return]


def _column(table: Any) -> Any:
    """Return the name of the column that holds paths, or else audio, or else the first."""
    names = list(table.columns if hasattr(table, "columns") else table)
    for name in names:
        with contextlib.suppress(Exception):  # of a stranger's table
            column = table[name]
            first = column[0] if not hasattr(column, "iloc") else column.iloc[0]
            if isinstance(first, (str, os.PathLike)):
                if os.path.splitext(os.fspath(first))[1].lower() in AUDIO_SUFFIXES:
                    return name
            elif isinstance(column, Sized) and (_is_array(first) or isinstance(first, (bytes, Mapping))):
                return name
    return next((name for name in names if str(name).lower() in _FILES), names[0] if names else "path")


def as_array(source: object, name: str) -> npt.NDArray[Any] | None:
    """Return `source` as a numpy array if it is an array or a tensor, else None."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        kind, place = source.dtype, source.device
        if not (source.is_floating_point() or kind in (torch.uint8, torch.int8, torch.int16, torch.int32)):
            how = "floats or integer PCM up to 32 bit"
            how += ", here tensor.short() if they are 16-bit integers" if kind == torch.int64 else ""
            raise AudioError(f"{name}: cannot take a tensor of {kind}: pass {how}")
        try:
            tensor = source.detach().to("cpu").resolve_neg()
            return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # type: ignore[no-any-return]
        except (RuntimeError, TypeError) as error:
            raise AudioError(
                f"{name}: cannot read a {source.layout} tensor on {place}: pass a dense tensor that holds values"
            ) from error
    if np.ma.isMaskedArray(source):
        raise AudioError(f"{name}: cannot take a masked array: fill its gaps, with array.filled(0.0)")
    return np.asarray(source) if isinstance(source, np.ndarray) else None


def as_frames(samples: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return `[samples]`, `[channels, samples]` or `[samples, channels]` as `[frames, channels]`.

    The longer side is that of the frames; of a square it is the second.

    Raises:
        AudioError: it has another shape.
    """
    if samples.ndim > 2:
        samples = samples.reshape([size for size in samples.shape if size != 1] or [1])
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise AudioError(f"{name}: shape must be [samples] or [channels, samples] with samples > 0")
    if samples.ndim == 1:
        return samples[:, None]
    frames = samples if samples.shape[0] > samples.shape[1] else samples.T
    if frames.shape[1] > MOST_CHANNELS:
        raise AudioError(f"{name}: {frames.shape[1]} channels: if every row is a clip, call predict_batch(list(array))")
    return frames
