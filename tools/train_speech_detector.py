"""Train the network that tells whether anybody speaks. `score_speech_detector.py` scores it and chooses its threshold.

mkdir sounds && (cd sounds && apt-get download $(python ../tools/train_speech_detector.py packages))
python tools/train_speech_detector.py train CORPORA sounds

CORPORA is a folder with `crema-d`, `emodb`, `wakewords` (Picovoice's wake-word benchmark, Apache-2.0) as in
docs/results.md, and `voices` of `free_speech.py`. Of CREMA-D only the 56 training speakers are used. `sounds` holds
packages of Debian 12 (main): music and sounds of games and desktops, all under free licences. What is read of them is
kept there. `train` writes the weights and pins their digest. It takes ten minutes of one core, and goes on where it was
stopped. It needs fluidsynth with fluid-soundfont-gm for music.

There are two rounds. In the second, nearly half of the examples, with and without speech, have gone through a telephone
or another narrow channel, because speech must not be told by its upper bands alone. The weights that ship had a first
round without `voices`, the last eleven packages, whispers and songs.

Nobody labels when the clips are speech: their own energy does. Packages hold some voices, too. What a network takes for
speech in a quarter of a sound, after a third of the first round and as the second begins, is left out from there on.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import re
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
import torch.nn.functional as F
from safetensors.numpy import save
from speech_channels import distorted, equalised, faster, room, sung, transmitted, whispered
from speech_sounds import RATE, convolve, made_up, random_midi
from torch import Tensor, nn

from speech_emotion_vit.audio import speech
from speech_emotion_vit.training.data.corpora import CORPORA

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int8]  # 1 speech, 0 none, -1 not to be judged


def _words(text: str) -> list[str]:
    return text.split()


TRAINING_PACKAGES = _words("""wesnoth-1.16-music wesnoth-1.16-data supertuxkart-data asterisk-moh-opsound-wav
frozen-bubble-data warzone2100-music warzone2100-data colobot-common-sounds hyperrogue-music tuxpaint-stamps-default
extremetuxracer-data torcs-data sonic-pi-samples sound-theme-freedesktop oxygen-sounds hydrogen-drumkits minetest-data
unknown-horizons ufoai-sound nexuiz-music scorched3d-data simutrans-pak64 lmms-common pushover-data 0ad-data pingus-data
alienblaster-data deepin-sound-theme starfighter-data tuxmath-data fretsonfire-songs-sectoid freedroidrpg-data zaz-data
trackballs-data searchandrescue-data ardentryst mu-cade-data rrootage-data noiz2sa-data titanion-data gunroar-data
torus-trooper-data""")
CHOICE_PACKAGES = _words("""supertux-data endless-sky-data kgoldrunner pathological chromium-bsu-data ri-li-data
opencity-data angrydd foobillardplus-data crrcsim-data trigger-rally-data""")
HELD_OUT_PACKAGES = _words("""megaglest-data planetblupi-music-ogg lomiri-sounds bzflag-data ufoai-music lincity-ng-data
boswars-data openarena-data granatier pidgin-data widelands-data singularity-music xmoto-data asc-music
lugaru-data""")
SUFFIXES = (".wav", ".ogg", ".oga", ".mp3", ".flac", ".opus", ".aif", ".aiff", ".au")
VOICES = re.compile(
    r"desc|voice|speech|speak|taunt|death|die|dying|pain|hurt|scream|laugh|human|male|talk|say|cry|yell|cheer|crowd|gasp"
    r"|cough|acknow|select|attack|ack|move|yes|hero|orc|unit|narrat|announc|hello|woman|vox|vocal|chant|choir|song|sing"
    r"|actor|gunner|wilhelm|grunt|groan|moan|breath|whisper|baby|child|kid|boy|girl|guy|monk|priest|flag|follow|position"
    r"|roger|negative|skull|defend|level0|ready|completed",
    re.IGNORECASE,
)  # names of files that hold voices, or may

HELD_OUT_VOICES = re.compile(
    r"action|youwin|initiate|shaman|summon|offense|incoming|defense|leader|roaming|cover|patrol|goingin|_ok\.",
    re.IGNORECASE,
)  # more of them, in the packages that score
PACKAGES = {"train": TRAINING_PACKAGES, "choice": CHOICE_PACKAGES, "held out": HELD_OUT_PACKAGES}
MINUTES = {"train": 13, "choice": 7, "held out": 7}  # of a package at most

_FACTS = CORPORA["crema-d"]
TEST, DEV = (  # of CREMA-D: the test speakers are never heard, the validation speakers choose the threshold
    frozenset(name.removeprefix("crema-d/") for name in names)
    for names in (_FACTS.test_speakers, _FACTS.validation_speakers)
)
CHOICE_VOICES = re.compile("_ru_|_it_IT_m_|_sounds_(da|lt|uk)_")  # prompts that choose the threshold
SILENT = "1076_MTI_SAD_XX"  # all zeros; CREMA-D's other defects are labels, which are not read here

SAMPLES = 64_000  # of an example, 4 s
OUTPUTS = SAMPLES // speech.STEP
ROUNDS = ((2400, 3e-3, 0.0), (1000, 2e-3, 0.45))  # steps, learning rate, share of examples after a telephone's channel
BATCH = 24
CLEAN_AT = 800  # of the first round; the second begins with it
MADE_UP = 2200  # sounds made up in advance
MIDI = 110  # random pieces of music

STEM, WIDTH = (12, 20), 64  # channels of the two convolutions of the stem, and of the blocks


class Detector(nn.Module):
    """The network of `speech_emotion_vit.audio.speech` with what training needs: normalisation, gradients."""

    def __init__(self) -> None:
        super().__init__()
        one, two = STEM
        self.stem1, self.norm1 = nn.Conv2d(1, one, (3, 5), (1, 2), (0, 2)), nn.BatchNorm2d(one)
        self.stem2, self.norm2 = nn.Conv2d(one, two, (4, 3), (2, 2), (0, 1)), nn.BatchNorm2d(two)
        self.project, self.norm3 = nn.Conv1d(two * speech.BANDS // 4, WIDTH, 1), nn.BatchNorm1d(WIDTH)
        self.blocks = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, dilation=step) for step in speech.DILATIONS)
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in speech.DILATIONS)
        self.head = nn.Conv1d(WIDTH, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits `[batch, outputs]` of spectrograms `[batch, 2 * outputs, bands]`."""
        hidden = F.pad(image, (0, 0, 2 * speech.CONTEXT, 2 * speech.CONTEXT))[:, None]
        hidden = F.relu(self.norm1(self.stem1(hidden)))
        hidden = F.relu(self.norm2(self.stem2(hidden)))
        hidden = F.relu(self.norm3(self.project(hidden.transpose(2, 3).flatten(1, 2))))
        for block, norm, step in zip(self.blocks, self.norms, speech.DILATIONS, strict=True):
            hidden = hidden[..., step:-step] + F.relu(norm(block(hidden)))
        return self.head(hidden)[:, 0]

    def weights(self) -> dict[str, npt.NDArray[np.float16]]:
        """Return the tensors of `speech.Weights`, the normalisations folded in."""

        def folded(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight = layer.weight * gain.view(-1, *[1] * (layer.weight.ndim - 1))
            return weight, (layer.bias - norm.running_mean) * gain + norm.bias

        (stem1, bias1), (stem2, bias2) = folded(self.stem1, self.norm1), folded(self.stem2, self.norm2)
        project, bias3 = folded(self.project, self.norm3)
        blocks = [folded(block, norm) for block, norm in zip(self.blocks, self.norms, strict=True)]
        project = project[:, :, 0].unflatten(1, (STEM[1], -1))  # torch has the channels before the bands
        tensors = {
            "stem1": stem1.permute(2, 3, 1, 0).flatten(0, 2),
            "stem1_bias": bias1,
            "stem2": stem2.permute(2, 3, 1, 0).flatten(0, 2),
            "stem2_bias": bias2,
            "project": project.permute(2, 1, 0).flatten(0, 1),
            "project_bias": bias3,
            "blocks": torch.stack([weight.permute(2, 1, 0).flatten(0, 1) for weight, _ in blocks]),
            "blocks_bias": torch.stack([bias for _, bias in blocks]),
            "head": self.head.weight[0, :, 0],
            "head_bias": self.head.bias,
        }
        return {
            name: np.ascontiguousarray(tensor.detach().numpy().astype(np.float16)) for name, tensor in tensors.items()
        }


# --- what is heard -----------------------------------------------------------------------------------------------


def recordings(corpora: Path, name: str) -> list[Path]:
    """Return the recordings of a corpus, without those that are known to be broken."""
    files = sorted(file for file in (corpora / name).rglob("*") if file.suffix in SUFFIXES)
    return [file for file in files if file.stem != SILENT]


def speech_files(corpora: Path, part: str) -> list[Path]:
    """Return the recordings of speech to `train`, or for the `choice` of the threshold: other speakers and words."""
    acted, words, prompts = (recordings(corpora, name) for name in ("crema-d", "wakewords", "voices"))
    kept = [file for file in prompts if CHOICE_VOICES.search(file.stem)]
    if part == "choice":
        return [file for file in acted if file.stem[:4] in DEV] + words[::10] + kept
    taught = [file for file in acted if file.stem[:4] not in {*TEST, *DEV}]
    few = [file for number, file in enumerate(words) if number % 10] * 3
    return taught + recordings(corpora, "emodb") + few + sorted(set(prompts) - set(kept))


def read(content: Any, *, seconds: float = 1e9, places: int = 1, random: np.random.Generator) -> Iterator[Floats]:
    """Yield up to so many pieces of a recording, mono at 16 kHz, without offset, peak 0.9."""
    with soundfile.SoundFile(content) as file:
        wanted = int(min(seconds * file.samplerate, file.frames))
        count = min(places, file.frames // max(1, wanted)) if file.frames > 1.5 * wanted else 1
        starts = [0] if count == 1 else sorted(random.integers(0, file.frames - wanted, count))
        for start in starts:
            file.seek(int(start))
            piece = soxr.resample(file.read(wanted, "float32", always_2d=True).mean(axis=1), file.samplerate, RATE)
            piece -= piece.mean()
            peak = np.abs(piece).max(initial=0.0)
            if peak > 1e-4 and len(piece) >= RATE // 10:
                yield (piece * (0.9 / peak)).astype(np.float32)


def package_sounds(deb: Path) -> Iterator[tuple[str, io.BytesIO]]:
    """Yield names and contents of the sounds in a Debian package, also those inside archives."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
        for file in sorted(Path(folder).rglob("*")):
            if not file.is_file() or file.is_symlink() or "voice" in str(file.relative_to(folder)).lower():
                continue
            if file.suffix.lower() in SUFFIXES:
                yield file.name, io.BytesIO(file.read_bytes())
            elif zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    for name in sorted(archive.namelist()):
                        if name.lower().endswith(SUFFIXES):
                            yield Path(name).name, io.BytesIO(archive.read(name))


def prepare_sounds(folder: Path, part: str) -> tuple[npt.NDArray[np.int16], list[tuple[str, str, int, int]]]:
    """Return the recorded sounds in a row, and package, name, start and end of each; read once, then kept there.

    `part` is one of `PACKAGES`.
    """
    table, store = folder / f"{part}.json", folder / f"{part}.npy"
    if table.exists():
        return np.load(store, mmap_mode="r"), [tuple(row) for row in json.loads(table.read_text())]
    random = np.random.default_rng(1)
    rows: list[tuple[str, str, int, int]] = []
    pieces: list[npt.NDArray[np.int16]] = []
    end = 0

    def add(package: str, name: str, content: Any, seconds: float, places: int) -> float:
        nonlocal end
        before = end
        try:
            for piece in read(content, seconds=seconds, places=places, random=random):
                pieces.append((piece * 32_767).astype(np.int16))
                rows.append((package, name, end, end + len(piece)))
                end += len(piece)
        except soundfile.LibsndfileError:
            pass  # not every file called .wav is one
        return (end - before) / RATE

    for package in PACKAGES[part]:
        deb = next(folder.glob(f"{package}_*.deb"))
        found = [(name, content) for name, content in package_sounds(deb) if not VOICES.search(name)]
        long = len(found) > 0 and np.median([len(content.getbuffer()) for _, content in found]) > 4e5  # music
        left = 60.0 * MINUTES[part]
        for index in random.permutation(len(found)):
            if left > 0:
                left -= add(package, *found[index], 12 if long else 8, 3 if long else 2)
        print(f"{package}: {len(found)} sounds", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        midi, wave = Path(scratch, "random.mid"), Path(scratch, "random.wav")
        for number in range(MIDI if part == "train" else 0):
            midi.write_bytes(random_midi(random))
            font = "/usr/share/sounds/sf2/FluidR3_GM.sf2"
            subprocess.run(["fluidsynth", "-niq", "-r", "16000", "-g", "0.6", "-F", wave, font, midi], check=True)
            add("fluidsynth", f"random {number}", wave, 12, 2)
    np.save(store, np.concatenate(pieces))
    table.write_text(json.dumps(rows))
    return np.load(store, mmap_mode="r"), rows


def energy(waveform: Floats) -> Floats:
    """Return log10 of the energy per output, upper bands emphasised as the detector does."""
    outputs = -(-len(waveform) // speech.STEP)
    padded = np.zeros((outputs + 1) * speech.STEP, np.float32)
    padded[: len(waveform)] = np.diff(waveform, prepend=waveform[:1]) + (1 - speech.EMPHASIS) * waveform
    return np.log10(np.square(padded[: outputs * speech.STEP]).reshape(outputs, -1).mean(axis=1) + 1e-16)


def speech_labels(waveform: Floats) -> Labels:
    """Return when somebody speaks in a clean recording: what is loud, with the short pauses in it."""
    level = energy(waveform)
    loud, floor = np.percentile(level, 98), np.percentile(level, 8)
    on = level > max(loud - 3.3, min(floor + 0.8, loud - 1.5))
    places = np.flatnonzero(on)
    for one, other in pairwise(places):
        if other - one <= 7:  # a pause of up to 0.2 s
            on[one:other] = True
    surely_not = level < max(loud - 4.3, min(floor + 0.4, loud - 2))
    labels = np.where(on, 1, np.where(surely_not, 0, -1)).astype(np.int8)
    for border in np.flatnonzero(np.abs(np.diff(labels)) == 1):  # an output on the border is both
        quiet = border if labels[border] == 0 else border + 1
        if {labels[border], labels[border + 1]} == {0, 1}:
            labels[quiet] = -1
    return labels


class Examples:
    """Examples of 4 s without end: half with speech among other sounds, half with other sounds alone."""

    def __init__(self, corpora: Path, folder: Path, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.channels = 0.0  # share of examples after a channel
        made = np.random.default_rng(seed + 1000)
        self.made = [(made_up(made, SAMPLES) * 29_000).astype(np.int16) for _ in range(MADE_UP)]
        files = speech_files(corpora, "train")
        clips = {f: next(read(f, random=self.random)) for f in dict.fromkeys(files)}
        stored = {f: ((clip * 32_767).astype(np.int16), speech_labels(clip)) for f, clip in clips.items()}
        self.speech = [stored[file] for file in files]
        self.store, rows = prepare_sounds(folder, "train")
        self.packages: dict[str, list[tuple[int, int]]] = {}
        for package, _, start, end in rows:
            self.packages.setdefault(package, []).append((start, end))

    def drop_voices(self, network: Detector) -> int:
        """Leave out what a network takes for speech in a quarter of a sound; return how many sounds that were."""
        network.eval()
        dropped = 0
        with torch.no_grad():
            for package, places in self.packages.items():
                kept = []
                for start, end in places:
                    image = torch.from_numpy(speech.spectrogram(self._recorded(start, min(end, start + SAMPLES))))
                    if (network(image[None]) > 0).float().mean() < 0.25:
                        kept.append((start, end))
                dropped += len(places) - len(kept)
                self.packages[package] = kept
        network.train()
        self.packages = {package: places for package, places in self.packages.items() if places}
        return dropped

    def _recorded(self, start: int, end: int) -> Floats:
        return self.store[start:end].astype(np.float32) / 32_768

    def _sound(self) -> Floats:
        random = self.random
        if random.random() < 0.45:
            return self.made[random.integers(len(self.made))].astype(np.float32) / 32_768
        names = list(self.packages)
        weights = np.array([sum(end - start for start, end in self.packages[name]) for name in names], float) ** 0.6
        places = self.packages[names[random.choice(len(names), p=weights / weights.sum())]]
        start, end = places[random.integers(len(places))]
        return self._recorded(start, min(end, start + 4 * SAMPLES))

    def noise(self) -> Floats:
        """Return one sound in which nobody speaks, `[SAMPLES]`, perhaps faster, slower, in a room or a band."""
        random = self.random
        sound = self._sound()
        if len(sound) < SAMPLES and random.random() < 0.7:
            pause = int(random.uniform(0, 0.6) * RATE * (random.random() < 0.5))
            sound = np.tile(np.concatenate((sound, np.zeros(pause, np.float32))), -(-SAMPLES // len(sound)))
        if random.random() < 0.4:
            sound = faster(sound, random.uniform(0.7, 1.45))
        start = int(random.integers(max(1, len(sound) - SAMPLES)))
        sound = sound[start : start + SAMPLES]
        result = np.zeros(SAMPLES, np.float32)
        at = int(random.integers(SAMPLES - len(sound) + 1))
        result[at : at + len(sound)] = sound
        if random.random() < 0.2:
            result = convolve(result, room(random))
        if random.random() < 0.25:
            result = equalised(random, result)
        peak = np.abs(result).max()
        return result / peak if peak > 1e-6 else result

    def without_speech(self) -> tuple[Floats, Labels]:
        """Return an example in which nobody speaks."""
        random = self.random
        sound = self.noise()
        if random.random() < 0.35:  # a part of it, alone or over something quieter
            start, end = np.sort(random.integers(0, SAMPLES, 2))
            rest = sound.copy()
            rest[start:end] = 0
            sound = sound - rest
            if random.random() < 0.5:
                other = self.noise() * np.float32(10 ** -random.uniform(0, 3))
                other[start:end] = 0
                sound = sound + other
        if random.random() < 0.35:
            sound = sound + self.noise() * np.float32(10 ** (-random.uniform(0, 45) / 20))
        return sound, np.zeros(OUTPUTS, np.int8)

    def with_speech(self) -> tuple[Floats, Labels]:
        """Return an example in which somebody speaks, with pauses, in a room, among noise."""
        random = self.random
        sound, labels = np.zeros(SAMPLES, np.float32), np.zeros(OUTPUTS, np.int8)
        at = int(random.integers(0, 25 if random.random() < 0.7 else 100))
        for _ in range(3):
            stored, marks = self.speech[random.integers(len(self.speech))]
            clip = stored.astype(np.float32) / 32_768
            manner = random.random()
            if manner < 0.07:
                clip = whispered(random, clip) if manner < 0.04 else sung(random, clip)
            if random.random() < 0.35:
                factor = random.uniform(0.75, 1.35 if random.random() < 0.8 else 1.6)  # some as high as children
                clip = faster(clip, factor)
                places = (np.arange(-(-len(clip) // speech.STEP)) * factor).astype(int)
                marks = marks[np.minimum(places, len(marks) - 1)]
            first = int(random.integers(0, max(1, len(marks) - 20))) if random.random() < 0.3 else 0
            last = first + int(random.integers(12, 60)) if random.random() < 0.25 else len(marks)
            marks = marks[first:last][: OUTPUTS - at]
            clip = clip[first * speech.STEP : (first + len(marks)) * speech.STEP]
            gain = 10 ** (-random.uniform(0, 14) * (random.random() < 0.4) / 20)
            sound[at * speech.STEP :][: len(clip)] += clip * np.float32(gain)
            labels[at : at + len(marks)] = marks
            at += len(marks) + int(random.integers(3, 60))
            if at > OUTPUTS - 12 or random.random() < 0.25:
                break
        if random.random() < 0.4:
            longest, loudest = (2.5, 0.6) if random.random() < 0.2 else (0.9, 0.25)
            sound = convolve(sound, room(random, longest=longest, loudest=loudest))
            level = energy(sound)
            labels[(labels == 0) & (level > level.max() - 4.5)] = -1  # the room answers
        if random.random() < 0.3:
            sound = equalised(random, sound)
        if random.random() < 0.8 and (labels == 1).any():
            noise = self.noise() + (0.5 * self.noise() if random.random() < 0.2 else 0)
            level = energy(sound)
            wanted = random.uniform(-3, 40 if random.random() < 0.8 else 10)  # dB
            ratio = np.mean(10 ** level[labels == 1]) / (np.mean(10 ** energy(noise)) + 1e-12)
            noise = noise * np.float32(np.sqrt(ratio * 10 ** (-wanted / 10)))
            labels[(labels == 1) & (level < energy(noise) - 0.7)] = -1  # nobody can hear it
            sound = sound + noise
        return sound, labels

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Return spectrograms `[batch, 2 * outputs, bands]` and labels `[batch, outputs]`."""
        images, targets = [], []
        for _ in range(size):
            sound, labels = self.with_speech() if self.random.random() < 0.55 else self.without_speech()
            if self.random.random() < self.channels:
                sound = transmitted(self.random, sound)
            if self.random.random() < 0.15:
                sound = distorted(self.random, sound)
            if self.random.random() < 0.1:
                sound = np.round(sound * 10 ** self.random.uniform(1, 3.5))
            images.append(speech.spectrogram(sound.astype(np.float32)))
            targets.append(labels)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))

    def batches(self, processes: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches without end, made by so many processes beside this one, or by itself."""
        if processes == 0:
            while True:
                yield self.batch(BATCH)
        fork = multiprocessing.get_context("fork")  # the recordings are shared, not copied
        queue = fork.Queue(2 * processes)

        def work(number: int) -> None:
            self.random = np.random.default_rng((seed, number))
            while True:
                queue.put([tensor.numpy() for tensor in self.batch(BATCH)])

        workers = [fork.Process(target=work, args=(number,), daemon=True) for number in range(processes)]
        try:
            for worker in workers:
                worker.start()
            while True:
                images, targets = queue.get()
                yield torch.from_numpy(images), torch.from_numpy(targets)
        finally:
            for worker in workers:
                worker.terminate()


# --- training and scores -----------------------------------------------------------------------------------------


def train_round(
    network: Detector, examples: Examples, steps: int, rate: float, clean_at: int, saved: Path, processes: int
) -> None:
    """Train for so many steps, or go on from `saved`; leave the average of the last steps in `network`."""
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    done, mean, begun = 0, 0.0, time.process_time()
    if saved.exists():
        state = torch.load(saved, weights_only=False)
        average.module.load_state_dict(state["average"])
        done = state["step"]
        if done < steps:
            for part, content in zip((network, optimiser, schedule), state["parts"], strict=True):
                part.load_state_dict(content)
            average.n_averaged.fill_(done)
            mean, examples.packages = state["mean"], state["packages"]
            examples.random.bit_generator.state = state["random"]
    batches = examples.batches(0 if done < clean_at else processes, done)
    for step in range(done + 1, steps + 1):
        images, labels = next(batches)
        network.train()
        logits = network(images)
        targets = (labels == 1).float() * 0.98 + 0.01
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        nobody = (labels == 1).sum(dim=1, keepdim=True) == 0
        wrong = torch.abs((labels == 1).float() - torch.sigmoid(logits.detach()))
        # What is hard counts up to three times: screams, music. Beside speech, what is none may be a breath.
        weights = torch.where(nobody | (labels == 1), 1 + 2 * wrong, torch.ones(())) * (labels >= 0)
        loss = (losses * weights).sum() / (labels >= 0).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        mean = loss.item() if step == 1 else mean + 0.02 * (loss.item() - mean)
        if step == clean_at:
            print(f"{examples.drop_voices(average.module)} recorded sounds hold voices and are left out")
            batches = examples.batches(processes, step)
        if step % 100 == 0:
            print(f"step {step}: loss {mean:.3f}, {time.process_time() - begun:.0f} s", flush=True)
            state = {"step": step, "mean": mean, "packages": examples.packages, "average": average.module.state_dict()}
            state["parts"] = [part.state_dict() for part in (network, optimiser, schedule)]
            torch.save(state | {"random": examples.random.bit_generator.state}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    network.load_state_dict(average.module.state_dict())


def train(corpora: Path, folder: Path, processes: int) -> None:
    """Train the network and put its weights into the package. What was stopped goes on."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, examples = Detector(), Examples(corpora, folder, seed=1)
    for number, (steps, rate, channels) in enumerate(ROUNDS):
        examples.channels = channels
        saved = folder / f"round{number + 1}.pt"
        train_round(network, examples, steps, rate, CLEAN_AT if number == 0 else 1, saved, processes)
    content = save(network.eval().weights())
    digest = hashlib.sha256(content).hexdigest()
    source = Path(speech.__file__)
    text = re.sub(r'(?m)^WEIGHTS_SHA256 = "\w+"', f'WEIGHTS_SHA256 = "{digest}"', source.read_text(encoding="utf-8"))
    speech.WEIGHTS_FILE.write_bytes(content)
    source.write_text(text, encoding="utf-8")
    print(f"{speech.WEIGHTS_FILE}: {len(content)} bytes, {digest}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["packages", "train"])
    parser.add_argument("corpora", type=Path, nargs="?")
    parser.add_argument("sounds", type=Path, nargs="?")
    parser.add_argument("--processes", type=int, default=0, help="that make examples, beside the one that trains")
    options = parser.parse_args()
    if options.action == "packages":
        print(*TRAINING_PACKAGES, *CHOICE_PACKAGES, *HELD_OUT_PACKAGES)
    elif options.sounds is None:
        parser.error("train needs the folders CORPORA and SOUNDS")
    else:
        train(options.corpora, options.sounds, options.processes)


if __name__ == "__main__":
    main()
