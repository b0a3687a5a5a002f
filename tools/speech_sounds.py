"""Sounds in which nobody speaks, made up: what the speech detector is taught to leave out, beside recorded ones."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 16_000  # Hz
HIGHEST = 7_900.0  # Hz, of a partial

Sound = npt.NDArray[np.float64]
Random = np.random.Generator


def made_up(random: Random, samples: int) -> npt.NDArray[np.float32]:
    """Return one sound `[samples]` of a kind drawn from `KINDS`, sometimes with a second one below it, peak 1."""
    sound = _level(_any(random, samples))
    if random.random() < 0.25:
        sound = _level(sound + _level(_any(random, samples)) * 10 ** (-random.uniform(0, 30) / 20))
    return sound.astype(np.float32)


def _any(random: Random, samples: int) -> Sound:
    return np.asarray(KINDS[random.integers(len(KINDS))](random, samples), np.float64)


def _level(sound: Sound) -> Sound:
    peak = np.abs(sound).max()
    return sound / peak if peak > 1e-3 else sound


def _curve(random: Random, samples: int, low: float, high: float, rate: float) -> Sound:
    """A random curve with `rate` bends a second."""
    bends = max(4, int(samples / RATE * rate) + 3)
    return np.interp(np.linspace(0, bends - 1, samples), np.arange(bends), random.uniform(low, high, bends))


def _phase(frequency: Sound) -> Sound:
    return 2 * np.pi * np.cumsum(frequency) / RATE


def _syllables(random: Random, samples: int) -> Sound:
    """An envelope with bumps as fast as syllables, 2 to 8 a second, and pauses."""
    envelope = np.zeros(samples)
    at, rate = int(random.uniform(0, 0.3) * RATE), random.uniform(2, 8)
    while at < samples:
        length = int(RATE / rate * random.uniform(0.5, 1.5))
        bump = np.hanning(max(8, int(length * random.uniform(0.5, 1.1)))) ** random.uniform(0.3, 2)
        bump = random.uniform(0.3, 1) * bump[: samples - at]
        envelope[at : at + len(bump)] = np.maximum(envelope[at : at + len(bump)], bump)
        at += length + int(random.uniform(0.2, 1) * RATE) * int(random.random() < 0.12)
    return envelope


def _coloured(random: Random, samples: int, slope: float) -> Sound:
    """Noise whose power falls with frequency to the `slope`: 0 white, 1 pink, 2 brown, -1 blue."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    spectrum *= np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 20) ** (-slope / 2)
    return _level(np.fft.irfft(spectrum, samples))


def _shaped(random: Random, samples: int) -> Sound:
    """Noise with a smooth random spectrum, as of rooms, fans and air."""
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    places = np.sort(np.log(random.uniform(20, 8000, random.integers(3, 10))))
    gain = np.interp(np.log(np.maximum(frequency, 20)), places, random.uniform(-40, 0, len(places)))
    if random.random() < 0.6:
        gain -= random.uniform(0, 12) * np.log2(np.maximum(frequency, 50) / 50)
    return _level(np.fft.irfft(np.fft.rfft(random.standard_normal(samples)) * 10 ** (gain / 20), samples))


def noise(random: Random, samples: int) -> Sound:
    """Steady noise of any colour."""
    if random.random() < 0.5:
        return _coloured(random, samples, random.choice([0, 0, 1, 1, 2, -1, random.uniform(-1, 3)]))
    return _shaped(random, samples)


def modulated(random: Random, samples: int) -> Sound:
    """Noise that swells, flutters, is keyed, or comes and goes as fast as syllables."""
    kind = random.integers(5)
    if kind == 0:
        envelope = _syllables(random, samples)
    elif kind == 1:
        rate = random.uniform(0.5, 16)
        envelope = 0.5 + 0.5 * random.uniform(0.2, 1) * np.sin(2 * np.pi * rate * np.arange(samples) / RATE)
    elif kind == 2:
        envelope = np.abs(_curve(random, samples, -1, 1, random.uniform(1, 20)))
    elif kind == 3:
        envelope = (_curve(random, samples, 0, 1, random.uniform(1, 10)) > 0.5).astype(np.float64)
    else:
        envelope = 10 ** _curve(random, samples, -2, 0, random.uniform(0.3, 4))
    return noise(random, samples) * envelope


def bursts(random: Random, samples: int) -> Sound:
    """Bursts of noise, each in a band of its own: steps, scratches, rustle."""
    sound = np.zeros(samples)
    at = 0
    while samples - at >= 64:
        length = min(samples - at, max(64, int(random.uniform(0.01, 0.5) * RATE)))
        low = random.uniform(50, 6000)
        high = min(HIGHEST, low * random.uniform(1.1, 4))
        frequency = np.fft.rfftfreq(length, 1 / RATE)
        band = np.exp(-0.5 * ((frequency - (low + high) / 2) / max(30, (high - low) / 2)) ** 2)
        burst = _level(np.fft.irfft(np.fft.rfft(random.standard_normal(length)) * band, length))
        decay = np.exp(-np.arange(length) / RATE * random.uniform(1, 60))
        burst *= decay if random.random() < 0.6 else np.hanning(length)
        sound[at : at + length] += burst * random.uniform(0.1, 1)
        at += int(length * random.uniform(0.5, 2)) + int(random.random() < 0.4) * int(random.uniform(0, 0.5) * RATE)
    return sound


def hum(random: Random, samples: int) -> Sound:
    """Hum of the mains and other steady buzz."""
    time = np.arange(samples) / RATE
    pitch = random.choice([50, 60, 100, 120, random.uniform(30, 400)])
    sound = _coloured(random, samples, 1) * random.uniform(0, 0.5)
    for partial in range(1, random.integers(2, 40)):
        if pitch * partial < HIGHEST:
            gain = random.uniform(0, 1) / partial ** random.uniform(0, 2)
            sound += gain * np.sin(2 * np.pi * pitch * partial * time + random.uniform(0, 2 * np.pi))
    return sound


def signals(random: Random, samples: int) -> Sound:
    """Dial, busy and ring tones, keys of a telephone, beeps, alarms, steady tones."""
    time = np.arange(samples) / RATE

    def sine(frequency: float) -> Sound:
        return np.sin(2 * np.pi * frequency * time)

    kind = random.integers(6)
    if kind == 0:
        return sine(350) + sine(440) if random.random() < 0.5 else sine(425)
    if kind == 1:
        on = (time * random.uniform(0.5, 2.5) + random.random()) % 1 < random.uniform(0.3, 0.6)
        return (sine(random.choice([425, 480, 400])) + sine(random.choice([425, 620, 450]))) * on
    if kind == 2:
        sound, at = np.zeros(samples), 0
        while at < samples:
            length = min(samples - at, int(random.uniform(0.05, 0.25) * RATE))
            low, high = random.choice([697, 770, 852, 941]), random.choice([1209, 1336, 1477])
            sound[at : at + length] = sine(low)[:length] + sine(high)[:length]
            at += length + int(random.uniform(0.03, 0.4) * RATE)
        return sound
    if kind == 3:
        beep = sine(random.uniform(200, 4000))
        beep = np.sign(beep) / 2 if random.random() < 0.5 else beep
        return beep * ((time * random.uniform(0.5, 8)) % 1 < random.uniform(0.1, 0.7))
    if kind == 4:
        first = (time * random.uniform(1, 15)) % 1 < 0.5
        return np.where(first, sine(random.uniform(300, 3000)), sine(random.uniform(300, 3000)))
    return np.sum([sine(random.uniform(60, 7000)) for _ in range(random.integers(1, 6))], axis=0)


def sweeps(random: Random, samples: int) -> Sound:
    """Sirens, chirps, whistles."""
    kind = random.integers(3)
    if kind == 0:
        pitch = np.exp(_curve(random, samples, np.log(80), np.log(6000), random.uniform(0.3, 4)))
    elif kind == 1:
        pitch = np.geomspace(*np.exp(random.uniform(np.log(50), np.log(7500), 2)), samples)
    else:
        wave = np.sin(_phase(_curve(random, samples, 0.2, 8, 1)))
        pitch = random.uniform(200, 3000) * 2 ** (random.uniform(0.02, 1) * wave)
    phase = _phase(pitch)
    sound = np.sin(phase)
    for partial in range(2, random.integers(2, 6)):
        sound += random.uniform(0, 0.6) / partial * np.sin(partial * phase) * (pitch * partial < HIGHEST)
    return sound * _syllables(random, samples) if random.random() < 0.4 else sound


def _harmonic(pitch: float | Sound, gains: Sound, samples: int) -> Sound:
    pitch = np.broadcast_to(np.asarray(pitch, np.float64), samples)
    phase = _phase(pitch)
    sound = np.zeros(samples)
    for partial, gain in enumerate(gains, 1):
        if gain and pitch.max() * partial < HIGHEST:
            sound += gain * np.sin(partial * phase + partial)
    return sound


def melody(random: Random, samples: int) -> Sound:
    """One to three voices of notes with attack, decay, vibrato and glides."""
    sound = np.zeros(samples)
    for _ in range(random.integers(1, 4)):
        gains = random.uniform(0, 1, random.integers(1, 24))
        gains *= np.arange(1, len(gains) + 1) ** -random.uniform(0, 2.5)
        if random.random() < 0.25:
            gains[1::2] = 0
        root, rate = random.uniform(60, 600), random.uniform(1, 9)
        vibrato = random.uniform(0, 0.36) * (random.random() < 0.5)
        decay = random.uniform(0, 12) * (random.random() < 0.6)
        legato, glides = random.uniform(0.4, 1.1), random.random() < 0.3
        at, before = 0, 0
        while samples - at >= 200:
            length = int(RATE / rate * random.choice([0.5, 1, 1, 1, 2, 4]))
            if random.random() < 0.85:
                sounding = min(int(length * legato) + 100, samples - at)
                time = np.arange(sounding) / RATE
                step = int(random.integers(-7, 15))
                note = step + ((before - step) * np.exp(-time * 20) if glides else 0)
                note = note + vibrato * np.sin(2 * np.pi * 6 * time) * np.minimum(1, time * 4)
                before = step
                tone = _harmonic(root * 2 ** (note / 12), gains, sounding) * np.exp(-decay * time)
                edge = min(sounding // 2, int(random.uniform(0.002, 0.06) * RATE) + 1)
                tone[:edge] *= np.linspace(0, 1, edge)
                tone[-edge:] *= np.linspace(1, 0, edge)
                sound[at : at + sounding] += tone * random.uniform(0.3, 1)
            at += length
    return sound


def chords(random: Random, samples: int) -> Sound:
    """Chords, held or struck."""
    sound = np.zeros(samples)
    at = 0
    while at < samples:
        length = min(samples - at, int(random.uniform(0.2, 4) * RATE))
        time = np.arange(length) / RATE
        root = random.uniform(60, 500)
        gains = random.uniform(0, 1, 10) * np.arange(1, 11) ** -random.uniform(0, 2)
        for step in random.choice([0, 3, 4, 7, 10, 11, 12, 14, 16], random.integers(2, 5), replace=False):
            attack = np.minimum(1, np.minimum(time, time[::-1]) * random.uniform(10, 500))
            tone = _harmonic(root * 2 ** (step / 12), gains, length)
            sound[at : at + length] += tone * np.exp(-random.uniform(0, 3) * time) * attack
        at += length
    return sound


def frequency_modulation(random: Random, samples: int) -> Sound:
    """Sounds of synthesisers: metallic, brassy, harsh."""
    time = np.arange(samples) / RATE
    pitch = random.uniform(50, 2000)
    ratio = random.choice([0.5, 1, 1.41, 2, 3, random.uniform(0.1, 5)])
    index = _curve(random, samples, 0, random.uniform(0.5, 10), random.uniform(0.5, 8))
    sound = np.sin(2 * np.pi * pitch * time + index * np.sin(2 * np.pi * pitch * ratio * time))
    return sound * _syllables(random, samples) if random.random() < 0.5 else sound


def clicks(random: Random, samples: int) -> Sound:
    """Clocks, keyboards, rain, crackle: many times one click."""
    kind = random.integers(4)
    if kind == 0:
        places = np.arange(int(random.uniform(0, 0.5) * RATE), samples, int(RATE / random.uniform(0.7, 12)))
    elif kind == 1:
        places = np.cumsum(random.exponential(RATE / random.uniform(2, 12), 200)).astype(int)
    elif kind == 2:
        places = random.integers(0, samples, int(samples / RATE * random.uniform(50, 3000)))
    else:
        places = np.cumsum(random.exponential(RATE / random.uniform(5, 60), 800)).astype(int)
    places = places[places < samples]
    sound = np.zeros(samples)
    np.add.at(sound, places, random.uniform(0.1, 1, len(places)) * random.choice([-1, 1], len(places)))
    length = int(RATE * random.uniform(0.002, 0.08))
    time = np.arange(length) / RATE
    ringing = np.sin(2 * np.pi * random.uniform(100, 6000) * time)
    click = np.exp(-time * random.uniform(30, 900))
    click *= random.standard_normal(length) if random.random() < 0.6 else ringing
    return _level(convolve(sound, click)) + noise(random, samples) * random.uniform(0, 0.05)


def drums(random: Random, samples: int) -> Sound:
    """A loop of three drums, sometimes with a melody over it."""
    sound = np.zeros(samples)
    step = int(RATE / random.uniform(4, 16))
    pattern = random.random((3, 16)) < np.array([[0.25], [0.25], [0.5]])
    for voice in range(3):
        length = int(RATE * random.uniform(0.04, 0.4))
        time = np.arange(length) / RATE
        if voice == 0:
            fall = random.uniform(0, 20) * (1 - np.exp(-time * 30))
            drum = np.sin(2 * np.pi * (random.uniform(40, 120) * time + fall)) * np.exp(-time * random.uniform(5, 30))
        else:
            drum = _shaped(random, length) * np.exp(-time * random.uniform(8, 80)) * random.uniform(0.2, 1)
        for beat, at in enumerate(range(0, samples, step)):
            if pattern[voice, beat % 16]:
                sound[at : at + length] += drum[: samples - at] * random.uniform(0.6, 1)
    return sound + melody(random, samples) * random.uniform(0, 0.4) if random.random() < 0.4 else sound


def engine(random: Random, samples: int) -> Sound:
    """Motors: harmonics of a low pitch that wanders, and noise in their rhythm."""
    phase = _phase(_curve(random, samples, 20, random.uniform(30, 250), random.uniform(0.2, 1.5)))
    sound = np.zeros(samples)
    for partial in range(1, random.integers(4, 30)):
        gain = random.uniform(0, 1) / partial ** random.uniform(0.3, 1.3)
        sound += gain * np.sin(partial * phase + random.uniform(0, 2 * np.pi))
    return _level(sound) + noise(random, samples) * (0.5 + 0.5 * np.sin(phase)) * random.uniform(0, 1.5)


def wind(random: Random, samples: int) -> Sound:
    """Gusts, deep and hissing."""
    deep = _coloured(random, samples, random.uniform(1, 3)) * 10 ** _curve(
        random, samples, -1, 0, random.uniform(0.5, 4)
    )
    return deep + _shaped(random, samples) * 10 ** _curve(random, samples, -2, 0, random.uniform(0.5, 3))


def resonances(random: Random, samples: int) -> Sound:
    """Noise or a buzz through one or two resonances that move: water, a wah-wah pedal, machines; a voice has more."""
    source = noise(random, samples)
    if random.random() < 0.4:
        source = np.sign(np.sin(_phase(_curve(random, samples, 40, 400, 2)))) / 2
    count = random.integers(1, 3)
    centres = [np.exp(_curve(random, samples, np.log(150), np.log(5000), random.uniform(0.5, 6))) for _ in range(count)]
    width, size = random.uniform(60, 600), 512
    frequency, taper = np.fft.rfftfreq(size, 1 / RATE), np.hanning(size)
    sound = np.zeros(samples)
    for at in range(0, samples - size, size // 2):
        gain = sum(1 / (1 + ((frequency - centre[at]) / width) ** 2) for centre in centres)
        sound[at : at + size] += np.fft.irfft(np.fft.rfft(source[at : at + size] * taper) * gain)
    return sound * _syllables(random, samples) if random.random() < 0.4 else sound


def static(random: Random, samples: int) -> Sound:
    """Bad lines: sparse impulses, steps, noise of few levels."""
    kind = random.integers(3)
    if kind == 0:
        return np.repeat(random.standard_normal(samples // 8 + 1), 8)[:samples]
    if kind == 1:
        return np.round(_coloured(random, samples, 1) * random.uniform(1, 4))
    return random.standard_normal(samples) * (random.random(samples) < random.uniform(0.001, 0.2))


def nothing(random: Random, samples: int) -> Sound:
    """Zeros, a constant, the noise of quantisation, three impulses."""
    kind = random.integers(4)
    if kind == 0:
        return np.zeros(samples)
    if kind == 1:
        return np.full(samples, random.uniform(-1, 1))
    if kind == 2:
        return np.round(random.standard_normal(samples) * random.uniform(0.2, 2)) / 32_768
    sound = np.zeros(samples)
    sound[random.integers(0, samples, 3)] = random.uniform(-1, 1, 3)
    return sound


KINDS: tuple[Callable[[Random, int], Any], ...] = (
    *(noise, noise, modulated, modulated, bursts, bursts, hum, signals, signals, sweeps, melody, melody, melody),
    *(chords, frequency_modulation, clicks, clicks, drums, engine, wind, resonances, static, nothing),
)
"""Kinds of sounds; what stands there twice is twice as frequent."""


def convolve(sound: npt.NDArray[Any], response: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `sound` through a filter, as long as it was."""
    size = 1 << (len(sound) + len(response)).bit_length()
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(response, size)
    return np.asarray(np.fft.irfft(spectrum, size)[: len(sound)], sound.dtype)


VOICES = (52, 53, 54, 85, 91, 123, 126)  # General MIDI programs that are people: choirs, "synth voice", applause ...


def random_midi(random: Random, seconds: float = 25.0) -> bytes:
    """Return a MIDI file with a random solo, duo, band or drums; solos with vibrato, slides and swells."""
    kind = random.choice(["solo", "solo", "duo", "band", "drums"])
    events: list[tuple[float, bytes]] = []
    programs = [program for program in range(128) if program not in VOICES]
    scale = np.array([0, 2, 4, 5, 7, 9, 11] if random.random() < 0.5 else [0, 2, 3, 5, 7, 8, 10])
    root, beat = int(random.integers(40, 64)), random.uniform(0.12, 0.5)
    for track in range({"solo": 1, "duo": 2, "band": 4, "drums": 0}[kind]):
        events.append((0.0, bytes([0xC0 | track, int(random.choice(programs))])))
        single, degree, time = random.random() < 0.7, int(random.integers(0, 10)), 0.0
        while time < seconds:
            length = beat * random.choice([0.5, 1, 1, 2, 3])
            if random.random() > 0.15:
                degree = int(np.clip(degree + random.integers(-3, 4), -4, 14))
                loudness, legato = int(random.integers(50, 120)), random.uniform(0.6, 1.1)
                for note in [degree] if single else [degree, degree + 2, degree + 4]:
                    key = int(np.clip(root + 12 * (note // 7) + scale[note % 7], 20, 100))
                    events.append((time, bytes([0x90 | track, key, loudness])))
                    events.append((time + length * legato, bytes([0x80 | track, key, 0])))
                if kind in ("solo", "duo") and length > 0.3:
                    events += _expression(random, track, time, length)
            time += length
    if kind in ("drums", "band"):
        pattern, keys = random.random((6, 16)) < random.uniform(0.1, 0.5), random.integers(35, 82, 6)
        for step in range(int(seconds / beat * 2)):
            for row in np.flatnonzero(pattern[:, step % 16]):
                events.append((step * beat / 2, bytes([0x99, int(keys[row]), int(random.integers(40, 127))])))
                events.append((step * beat / 2 + 0.1, bytes([0x89, int(keys[row]), 0])))
    body, before = b"", 0
    for time, event in sorted(events, key=lambda item: item[0]):
        tick = max(before, int(time * 960))
        body += _variable(tick - before) + event
        before = tick
    body += b"\x00\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(body)) + body


def _expression(random: Random, track: int, start: float, length: float) -> list[tuple[float, bytes]]:
    """Vibrato, a slide into the note, a swell."""
    rate, depth = random.uniform(4, 7), random.uniform(0, 1500)
    slide = random.uniform(-3000, 3000) * (random.random() < 0.4)
    events = []
    for time in np.arange(0, length, 0.03):
        bend = 8192 + depth * np.sin(2 * np.pi * rate * time) * min(1, time / 0.3) + slide * max(0, 1 - time / 0.12)
        value = int(np.clip(bend, 0, 16_383))
        swell = int(np.clip(127 * (0.5 + 0.5 * np.sin(np.pi * time / length)), 1, 127))
        events.append((start + time, bytes([0xE0 | track, value & 127, value >> 7])))
        events.append((start + time, bytes([0xB0 | track, 11, swell])))
    return events


def _variable(number: int) -> bytes:
    """A number as MIDI writes it: seven bits a byte."""
    parts = [number & 127]
    while number := number >> 7:
        parts.append(number & 127 | 128)
    return bytes(reversed(parts))
