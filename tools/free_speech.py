"""Collect freely licensed speech without emotion labels, which a student may hear while it is matched to its teacher.

python tools/free_speech.py DIR        on Debian, with espeak-ng, flite and PyAV

Two folders of DIR are filled with clips of up to six seconds, 16 kHz FLAC:

* `voices`: prompts of telephone systems and of games for children that Debian packs, by people, in some thirty
  languages (CC BY-SA 3.0, GPL-2+ and LGPL-2.1; the packages are named below, and each holds its licence);
* `synthetic`: made-up phrases by the synthesisers espeak-ng and flite, in 53 languages.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

RATE = 16_000
LONGEST = 6 * RATE
PACKAGES = (
    *(f"asterisk-core-sounds-{language}-g722" for language in ("en", "es", "fr", "it", "ru")),
    "asterisk-prompt-es-co",
    "asterisk-prompt-fr-armelle",
    "asterisk-prompt-it-menardi-wav",
    "klettres-data",
    "ktuberling-data",
    "codec2-examples",
    "pocketsphinx-testdata",
)
FORMATS = {".g722": "g722", ".gsm": "gsm", ".wav": None, ".ogg": None, ".opus": None}
NO_SPEECH = ("beep", "tone", "silence", "ascend", "music", "/effects", "moh", "noise", "soundtheme")
LANGUAGES = """
en en-us de fr es it pt pt-br nl sv da nb fi pl cs sk hu ro el tr ru uk bg hr sr hi bn ta te ur fa ar he id ms vi th cmn
yue ja ko ka hy az kk sw eu ca ga cy lv lt et
""".split()
VARIANTS = """m1 m2 m3 m4 m5 m6 m7 f1 f2 f3 f4 f5 croak whisper klatt klatt2 klatt3 klatt4""".split()
WORDS = """
the a this that people water house light never always seven morning table quickly bring under over small large green
window yesterday tomorrow please could would because river children answer letter kitchen travel music paper winter
summer doctor teacher phone number eleven office weather remember together between another nothing something
""".split()
PHRASES = 1500

Samples = npt.NDArray[np.float32]


def read(path: Path) -> Samples:
    """Return a file at 16 kHz, mono, `[samples]`."""
    with av.open(str(path), format=FORMATS[path.suffix], metadata_errors="ignore") as container:
        resampler = av.AudioResampler("flt", "mono", RATE)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def joined(paths: list[Path], rng: np.random.Generator) -> Iterator[Samples]:
    """Yield clips of one to six seconds of words that are far shorter, with short pauses."""
    parts: list[Samples] = []
    samples, wanted = 0, rng.uniform(2, 5) * RATE
    for index in rng.permutation(len(paths)):
        word = read(paths[index])
        if len(word) < RATE // 5 or (peak := np.abs(word).max()) < 0.01:
            continue
        parts += [word * np.float32(0.9 / peak), np.zeros(int(rng.uniform(0.02, 0.3) * RATE), np.float32)]
        samples += len(word)
        if samples >= wanted:
            whole = np.concatenate(parts)
            yield from (whole[start : start + LONGEST] for start in range(0, max(1, len(whole) - RATE), LONGEST))
            parts, samples, wanted = [], 0, rng.uniform(1.2, 5) * RATE
    if samples > RATE:
        yield np.concatenate(parts)[:LONGEST]


def voices(output: Path) -> int:
    """Fetch the packages and write what people say in them; return how many clips."""
    output.mkdir(parents=True, exist_ok=True)
    count = 0
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for package in PACKAGES:
            subprocess.run(["apt-get", "download", package], cwd=place, check=True)
        for archive in place.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", archive, place / "all"], check=True)
        folders: dict[Path, list[Path]] = {}
        for path in sorted((place / "all").rglob("*")):
            if path.suffix in FORMATS and not any(word in str(path).lower() for word in NO_SPEECH):
                folders.setdefault(path.parent, []).append(path)
        rng = np.random.default_rng(0)
        for folder, paths in folders.items():
            title = "_".join(folder.relative_to(place / "all" / "usr" / "share").parts)
            for number, clip in enumerate(joined(paths, rng)):
                soundfile.write(output / f"{title}_{number:03d}.flac", clip, RATE, subtype="PCM_16")
                count += 1
    return count


def synthetic(output: Path) -> int:
    """Write phrases of synthesisers; return how many."""
    output.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    count = 0
    with tempfile.TemporaryDirectory() as name:
        wav = Path(name) / "phrase.wav"
        for number in range(PHRASES):
            if number % 3 == 2:
                text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 10)))
                pace = f"duration_stretch={rng.uniform(0.8, 1.3):.2f}"
                pitch = f"int_f0_target_mean={rng.randint(85, 220)}"
                voice = rng.choice(["kal", "kal16", "awb", "rms", "slt"])
                command = ["flite", "-voice", voice, "--setf", pace, "--setf", pitch, "-t", text, "-o", wav]
            else:  # numbers are read in any language
                text = " ".join(str(rng.randint(1, 10 ** rng.randint(2, 5))) for _ in range(rng.randint(1, 2)))
                voice = f"{rng.choice(LANGUAGES)}+{rng.choice(VARIANTS)}"
                manner = ["-p", str(rng.randint(15, 85)), "-s", str(rng.randint(120, 230))]
                command = ["espeak-ng", "-v", voice, *manner, "-w", wav, text]
            subprocess.run(command, check=True, capture_output=True)
            samples, rate = soundfile.read(wav, dtype="float32")
            if len(samples) > 0.6 * rate:
                clip = soxr.resample(samples, rate, RATE)[: 5 * RATE]
                soundfile.write(
                    output / f"{number:04d}.flac", clip * (0.9 / np.abs(clip).max()), RATE, subtype="PCM_16"
                )
                count += 1
    return count


def main(arguments: argparse.Namespace) -> None:
    """Fill both folders and say how much there is."""
    for name, make in (("voices", voices), ("synthetic", synthetic)):
        print(f"{name}: {make(arguments.folder / name)} clips")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the corpora")
    sys.exit(main(parser.parse_args()))
