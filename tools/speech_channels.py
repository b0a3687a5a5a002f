"""What happens to a sound on its way to the detector: rooms, microphones, telephones, codecs. And whispers, songs."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from speech_sounds import RATE, convolve

from speech_emotion_vit.training.data.augment import mu_law, quantise

Floats = npt.NDArray[np.float32]
Random = np.random.Generator

TELEPHONE = 8_000  # Hz, the sampling rate of telephone calls
FRAME = 512  # samples, of the envelope of a voice
CEPSTRUM = 28  # coefficients that an envelope has: below the pitch of most voices


def room(random: Random, shortest: float = 0.08, longest: float = 0.9, loudest: float = 0.25) -> Floats:
    """Return the response of a room: a direct sound and noise that decays by 60 dB in so many seconds."""
    length = int(random.uniform(shortest, longest) * RATE)
    response = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / length) * random.uniform(0.02, loudest)
    response[1 : random.integers(20, 400)] *= random.uniform(0, 1)
    response[0] = 1
    return response.astype(np.float32)


def equalised(random: Random, sound: Floats) -> Floats:
    """Return `sound` as a telephone, a small or a muffled microphone, or an equaliser has it."""
    frequency = np.maximum(np.fft.rfftfreq(len(sound), 1 / RATE), 1)
    kind = random.integers(4)
    if kind == 0:
        gain = 1 / (1 + (300 / frequency) ** 6) / (1 + (frequency / 3400) ** 12)
    elif kind == 1:
        gain = 1 / (1 + (random.uniform(80, 500) / frequency) ** 4)
    elif kind == 2:
        gain = 1 / (1 + (frequency / random.uniform(2000, 7000)) ** 8)
    else:
        places = np.linspace(np.log(50), np.log(8000), 6)
        gain = 10 ** (np.interp(np.log(frequency), places, random.uniform(-12, 12, 6)) / 20)
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound)).astype(np.float32)


def distorted(random: Random, sound: Floats) -> Floats:
    """Return `sound` clipped, in mu-law, coarse, or with an offset."""
    kind, peak = random.integers(4), np.abs(sound).max() + 1e-9
    if kind == 0:
        limit = peak * random.uniform(0.1, 0.7)
        return np.clip(sound, -limit, limit)
    if kind == 1:
        return mu_law(sound, peak)
    if kind == 2:
        return quantise(sound, peak / 2 ** random.uniform(3, 9))
    return sound + np.float32(random.uniform(-0.5, 0.5) * peak)


def transmitted(random: Random, sound: Floats) -> Floats:
    """Return `sound` at 16 kHz after a channel that keeps little above 3 to 6 kHz, mostly a telephone's, as loud."""
    peak = float(np.abs(sound).max())
    if peak < 1e-6:
        return sound
    full = sound * np.float32(10 ** (-random.uniform(0, 1.5)) / peak)  # codecs care for the level
    kind = random.random()
    if kind < 0.1:  # recorded at another low rate
        rate = int(random.choice([6_000, 7_000, 10_000, 11_025, 12_000]))
        result = coded(full, rate, "PCM_16")
    else:
        if random.random() < 0.5:
            full = band(full, random.uniform(150, 350), random.uniform(3000, 3900))
        codec = random.choice(["PCM_16", "ULAW", "ALAW", "GSM610", "OPUS"], p=[0.5, 0.14, 0.14, 0.16, 0.06])
        result = coded(full, TELEPHONE, codec)
    return result * np.float32(peak / max(float(np.abs(full).max()), 1e-6))


def band(sound: Floats, lowest: float, highest: float) -> Floats:
    """Return what lies between two frequencies in Hz, with the steep flanks of a telephone's filter."""
    frequency = np.maximum(np.fft.rfftfreq(len(sound), 1 / RATE), 1)
    gain = 1 / (1 + (lowest / frequency) ** 12) / (1 + (frequency / highest) ** 40)
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound)).astype(np.float32)


def coded(sound: Floats, rate: int, codec: str) -> Floats:
    """Return `sound` `[samples]` at 16 kHz after sampling at `rate` Hz and a codec: AMR, or one of libsndfile."""
    low = np.clip(soxr.resample(sound, RATE, rate), -1, 1)
    if codec == "AMR":
        low = _amr(low)
    elif codec == "PCM_16":
        low = (np.round(low * 32_767) / 32_768).astype(np.float32)
    else:
        content = io.BytesIO()
        kinds = {"OPUS": "OGG", "MPEG_LAYER_III": "MP3"}
        quality = {"compression_level": 1.0} if codec in kinds else {}  # 8 kbit/s of Opus
        soundfile.write(content, low, rate, format=kinds.get(codec, "WAV"), subtype=codec, **quality)
        content.seek(0)
        low, rate = soundfile.read(content, dtype="float32")
    result = soxr.resample(low, rate, RATE)[: len(sound)]
    return np.pad(result, (0, len(sound) - len(result)))


def _amr(sound: Floats) -> Floats:
    """Return `sound` at 8 kHz after the codec of mobile telephones."""
    import av

    encoder = av.CodecContext.create("libopencore_amrnb", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = TELEPHONE, "mono", "s16", 4750
    decoder = av.CodecContext.create("amrnb", "r")
    whole = np.pad((sound * 32_767).astype(np.int16), (0, -len(sound) % 160))
    packets = []
    for start in range(0, len(whole), 160):
        frame = av.AudioFrame.from_ndarray(whole[None, start : start + 160], format="s16", layout="mono")
        frame.sample_rate, frame.pts = TELEPHONE, start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    parts = [frame.to_ndarray()[0] for packet in packets for frame in decoder.decode(packet)]
    return np.clip(np.concatenate(parts), -1, 1).astype(np.float32)


def whispered(random: Random, clip: Floats) -> Floats:
    """Return the words of a voice without its pitch: its envelope on noise, with less of the lower bands."""
    return _spoken_by(clip, random.standard_normal(len(clip)), 2)


def sung(random: Random, clip: Floats) -> Floats:
    """Return the words of a voice on notes that are held for 0.3 to 1.2 s, with vibrato."""
    steps = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    root, pitch = random.uniform(110, 330), np.zeros(0)
    while len(pitch) < len(clip):
        note = root * 2 ** (random.choice(steps) / 12)
        pitch = np.append(pitch, np.full(int(random.uniform(0.3, 1.2) * RATE), note))
    time = np.arange(len(clip)) / RATE
    phase = 2 * np.pi * np.cumsum(pitch[: len(clip)] * (1 + 0.02 * np.sin(2 * np.pi * 5.5 * time))) / RATE
    source = sum(np.cos(partial * phase) for partial in range(1, int(7500 / (2 * root))))
    return _spoken_by(clip, source + 0.3 * random.standard_normal(len(clip)), 0)


def _spoken_by(clip: Floats, source: npt.NDArray[np.float64], tilt: float) -> Floats:
    """Return `source` under the envelope of a voice, with so many orders of high-pass at 500 Hz, peak 0.9."""
    window = np.hanning(FRAME + 1)[:-1]
    frequency = np.maximum(np.fft.rfftfreq(FRAME, 1 / RATE), 1)
    gain = 1 / (1 + (500 / frequency) ** tilt) if tilt else np.ones_like(frequency)
    result = np.zeros(len(clip) + FRAME)
    for start in range(0, len(clip) - FRAME + 1, FRAME // 4):
        power = np.abs(np.fft.rfft(clip[start : start + FRAME] * window)) ** 2
        cepstrum = np.fft.irfft(np.log(power + 1e-9))
        cepstrum[CEPSTRUM : FRAME - CEPSTRUM + 1] = 0
        envelope = np.exp(np.fft.rfft(cepstrum).real / 2)
        piece = np.fft.rfft(source[start : start + FRAME] * window)
        flat = piece / np.sqrt(np.mean(np.abs(piece) ** 2) + 1e-12)
        result[start : start + FRAME] += np.fft.irfft(flat * envelope * gain) * window
    return (result[: len(clip)] * (0.9 / (np.abs(result).max() + 1e-9))).astype(np.float32)


def faster(sound: Floats, factor: float) -> Floats:
    """Return `sound` played so many times as fast, and as high."""
    return np.interp(np.arange(0, len(sound) - 1, factor), np.arange(len(sound)), sound).astype(np.float32)


def reverberated(random: Random, sound: Floats) -> Floats:
    """Return `sound` in a church: 1.5 to 3 s of reverberation, most of it louder than what comes directly."""
    return convolve(sound, room(random, 1.5, 3.0, 0.6))
