"""The search of a folder finds what can be read, and says how much else there is."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from audio_files import pieces
from helpers import encoded, speech
from speech_emotion_vit.audio.reader import AudioReader
from speech_emotion_vit.audio.suffixes import AUDIO_SUFFIXES, AV_SUFFIXES, find_audio

# Suffix -> container and codec of FFmpeg, for what it can write.
BY_FFMPEG = {
    **dict.fromkeys(("m4a", "m4b", "m4r", "f4a"), ("ipod", "aac")),
    **dict.fromkeys(("mp4", "m4v", "f4v"), ("mp4", "aac")),
    **dict.fromkeys(("mov", "qt"), ("mov", "pcm_s16le")),
    **dict.fromkeys(("3gp", "3gpp", "3ga"), ("3gp", "aac")),
    **dict.fromkeys(("3g2", "3gpp2"), ("3g2", "aac")),
    **dict.fromkeys(("aac", "adts"), ("adts", "aac")),
    **dict.fromkeys(("latm", "loas"), ("latm", "aac")),
    "ac3": ("ac3", "ac3"),
    **dict.fromkeys(("eac3", "ec3"), ("eac3", "eac3")),
    "amr": ("amr", "libopencore_amrnb"),
    **dict.fromkeys(("asf", "wma", "wmv"), ("asf", "wmav2")),
    **dict.fromkeys(("avi", "divx"), ("avi", "mp2")),
    "flv": ("flv", "libmp3lame"),
    **dict.fromkeys(("mka", "mkv", "mk3d"), ("matroska", "pcm_s16le")),
    **dict.fromkeys(("webm", "weba"), ("webm", "libopus")),
    **dict.fromkeys(("mpg", "mpeg", "mpe", "vob"), ("mpeg", "mp2")),
    **dict.fromkeys(("ts", "mts", "m2t", "m2ts"), ("mpegts", "mp2")),
    "nut": ("nut", "mp2"),
    **dict.fromkeys(("rm", "ra", "rmvb"), ("rm", "real_144")),
    "tta": ("tta", "tta"),
    "wv": ("wv", "wavpack"),
    **dict.fromkeys(("ogv", "ogx", "ogm"), ("ogg", "libopus")),
}
# What no library here writes, by the demuxer and the decoder of FFmpeg that read it.
READ_ONLY = {
    "ape": ("ape", "ape"),
    "awb": ("amr", "amrwb"),
    "dsf": ("dsf", "dsd_lsbf"),
    "dts": ("dts", "dca"),
    "mlp": ("mlp", "mlp"),
    "mpc": ("mpc8", "mpc8"),
    "shn": ("shn", "shorten"),
    "spx": ("ogg", "speex"),
    "tak": ("tak", "tak"),
    "thd": ("truehd", "truehd"),
}
# Suffix -> format of libsndfile, where it is not the suffix itself.
BY_LIBSNDFILE = {
    **dict.fromkeys(("aif", "aifc", "aiff"), "AIFF"),
    **dict.fromkeys(("au", "snd"), "AU"),
    **dict.fromkeys(("bwf", "wav", "wave"), "WAV"),
    **dict.fromkeys(("sf", "ircam"), "IRCAM"),
    **dict.fromkeys(("iff", "svx"), "SVX"),
    **dict.fromkeys(("m1a", "mp1", "m2a", "mp2", "mp3", "mpa", "mpga"), "MP3"),
    **dict.fromkeys(("nist", "sph"), "NIST"),
    **dict.fromkeys(("oga", "ogg", "opus"), "OGG"),
}


def recording(suffix: str) -> bytes:
    if suffix in BY_FFMPEG:
        form, codec = BY_FFMPEG[suffix]
        rate = 8_000 if codec in ("libopencore_amrnb", "real_144") else 48_000
        samples = speech(2.0)[::2] if rate == 8_000 else np.repeat(speech(2.0), 3)
        target = io.BytesIO()
        with av.open(target, "w", format=form) as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            if codec == "wmav2":
                stream.bit_rate = 64_000
            for packet in pieces(stream, samples, rate):
                container.mux(packet)
        return target.getvalue()
    if suffix == "gsm":
        return encoded(speech(2.0)[::2], 8_000, format="RAW", subtype="GSM610")
    form = BY_LIBSNDFILE.get(suffix, suffix.upper())
    return encoded(0.3 * speech(2.0), 16_000, format=form, subtype=soundfile.default_subtype(form))


def test_the_list_is_what_the_decoders_read() -> None:
    names = {suffix[1:] for suffix in AUDIO_SUFFIXES}
    of_av = {*BY_FFMPEG, *READ_ONLY, "gsm"}
    assert {suffix[1:] for suffix in AV_SUFFIXES} == of_av
    assert {form.lower() for form in soundfile.available_formats()} - names == {"raw", "sd2", "mat4", "mat5", "mpc2k"}
    assert all(BY_LIBSNDFILE.get(name, name.upper()) in soundfile.available_formats() for name in names - of_av)
    for demuxer, decoder in READ_ONLY.values():
        assert av.format.ContainerFormat(demuxer, "r").is_input
        assert av.codec.Codec(decoder, "r").is_decoder


@pytest.mark.parametrize("suffix", sorted(suffix[1:] for suffix in AUDIO_SUFFIXES if suffix[1:] not in READ_ONLY))
def test_what_the_search_finds_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(recording(suffix))
    assert find_audio(tmp_path).paths == [str(path)]
    assert AudioReader(path).channels == 1
    reader = AudioReader(path)
    assert sum(map(len, reader)) > 10_000
    assert not any(warning.startswith(("damaged", "truncated", "incomplete")) for warning in reader.warnings)


def test_every_other_file_is_counted(tmp_path: Path) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    for name in ("a.wav", "b.MOV", "deep/c.Wave", "deep/deeper/d.mpga"):
        (tmp_path / name).touch()
    for name in ("x.txt", "deep/y.TXT", "deep/z.pdf", "README", ".DS_Store", "._a.wav", "Thumbs.db"):
        (tmp_path / name).touch()
    search = find_audio(tmp_path)
    assert [os.path.relpath(path, tmp_path) for path in search.paths] == [
        "a.wav", "b.MOV", "deep/c.Wave", "deep/deeper/d.mpga"
    ]  # fmt: skip
    assert search.passed_over() == "4 files are passed over, not named like audio: 2 .txt, 1 .pdf, 1 without suffix"
    for number in range(20):
        (tmp_path / f"x.\n{number}").touch()
    said = search.passed_over() and find_audio(tmp_path).passed_over()
    assert said is not None
    assert said.isprintable()
    assert len(said) < 200
    assert find_audio(tmp_path / "deep" / "deeper").passed_over() is None


def test_typescript_is_no_transport_stream(tmp_path: Path) -> None:
    (tmp_path / "main.ts").write_text("Go = 1;\n" * 200)
    (tmp_path / "empty.mts").touch()
    (tmp_path / "film.ts").write_bytes(recording("ts"))
    os.mkfifo(tmp_path / "pipe.ts")
    search = find_audio(tmp_path)
    assert sorted(map(os.path.basename, search.paths)) == ["film.ts", "pipe.ts"]
    assert search.passed_over() == "2 files are passed over, not named like audio: 1 .mts, 1 .ts"
