from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers import speech, tone
from speech_emotion_vit.training.data.augment import (
    PEAK,
    RATE,
    Degradation,
    band,
    change_speed,
    coloured,
    degrade,
    equalizer,
    mu_law,
    noise,
    pad,
    quantise,
    room,
)

NOTHING = Degradation(
    nothing=0.0,
    equalizer=0.0,
    telephone=0.0,
    low_pass=0.0,
    high_pass=0.0,
    room=0.0,
    noise=0.0,
    clipping=0.0,
    quantising=0.0,
    mu_law=0.0,
)


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bank(rng: np.random.Generator) -> np.ndarray:
    return tone(rng.uniform(100, 900), 0.5)


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def share(waveform: np.ndarray, low: float, high: float) -> float:
    """Of the energy, how much lies between two frequencies."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(power[(frequency >= low) & (frequency < high)].sum() / power.sum())


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_drawn_is_as_long_finite_and_decided_by_the_generator(seed: int) -> None:
    waveform = speech(0.7)
    state = np.random.get_state()[1].tolist()  # type: ignore[union-attr]  # noqa: NPY002
    heard = degrade(waveform, seeded(seed), bank=bank)
    assert heard.shape == waveform.shape
    assert heard.dtype == np.float32
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() == pytest.approx(PEAK, abs=1e-3) or heard is waveform
    assert (heard == degrade(waveform, seeded(seed), bank=bank)).all()
    assert np.random.get_state()[1].tolist() == state  # type: ignore[union-attr]  # noqa: NPY002


def test_clips_differ_and_some_are_left_alone() -> None:
    waveform = speech(0.5)
    heard = [degrade(waveform, seeded(seed), bank=bank) for seed in range(100)]
    alone = sum(each is waveform for each in heard)
    assert 5 < alone < 30
    assert len({each.tobytes() for each in heard}) == 101 - alone


@pytest.mark.parametrize("waveform", [np.zeros(0, np.float32), np.zeros(1, np.float32), np.zeros(800, np.float32)])
def test_silence_and_nothing_stay_finite(waveform: np.ndarray) -> None:
    for seed in range(20):
        heard = degrade(waveform, seeded(seed), bank=bank)
        assert len(heard) == len(waveform)
        assert np.isfinite(heard).all()


def test_without_a_change_only_the_level_differs() -> None:
    waveform = speech(1.0)
    heard = degrade(waveform, seeded(), settings=NOTHING)
    assert np.abs(heard - waveform * PEAK / np.abs(waveform).max()).max() < 1e-5


def test_a_clip_stays_in_step_with_itself() -> None:
    """The teacher's frames are those of the clean clip, so nothing may move: the direct sound leads the room."""
    click = np.zeros(4000, np.float32)
    click[1000] = 1
    heard = degrade(click, seeded(1), settings=replace(NOTHING, room=1.0, equalizer=1.0))
    assert np.abs(heard).argmax() == 1000


def test_noise_lies_as_far_below_the_speech_as_was_asked() -> None:
    waveform = tone(1000, 2.0)
    for level in (0.0, 10.0, 30.0):
        settings = replace(NOTHING, noise=1.0, loudest_db=level, quietest_db=level)
        heard = degrade(waveform, seeded(3), settings=settings)
        clean = waveform * np.dot(heard, waveform) / np.dot(waveform, waveform)
        assert decibels(clean.std() / (heard - clean).std()) == pytest.approx(level, abs=1.0)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_as_its_slope_says(slope: float) -> None:
    made = coloured(4 * RATE, seeded(), slope)
    assert made.std() == pytest.approx(1, abs=1e-3)
    low, high = share(made, 500, 1000), share(made, 1000, 2000)  # twice as wide, half of 2 ** slope as dense
    assert high / low == pytest.approx(2 ** (1 - slope), rel=0.1)


def test_every_kind_of_noise_has_deviation_1_and_babble_is_made_of_the_bank() -> None:
    asked: list[int] = []

    def counting(rng: np.random.Generator) -> np.ndarray:
        asked.append(1)
        return bank(rng)

    for seed in range(60):
        before = len(asked)
        made = noise(RATE, seeded(seed), bank=counting)
        assert made.std() == pytest.approx(1, abs=2e-3)
        assert len(made) == RATE
        if len(asked) > before:
            assert 3 <= len(asked) - before <= 7
            assert share(made, 50, 1000) > 0.95  # where the bank's tones are
    assert asked
    assert all(np.isfinite(noise(RATE, seeded(seed))).all() for seed in range(30))


def test_bands_let_through_what_is_between_their_limits() -> None:
    frequency = np.array([0.0, 75, 150, 300, 1000, 3400, 6800])
    gains = band(frequency, low=300, high=3400)
    levels = [decibels(gain) for gain in gains[1:]]
    assert levels == pytest.approx([-48, -24.1, -3, 0, -3, -48.2], abs=0.5)
    assert (band(frequency) == 1).all()


def test_an_equalizer_is_smooth_and_moderate() -> None:
    frequency = np.fft.rfftfreq(4096, 1 / RATE)
    levels = 20 * np.log10([equalizer(frequency, seeded(seed)) for seed in range(50)])
    assert np.abs(np.diff(levels[:, 20:])).max() < 3
    assert 1 < levels.std() < 6


def test_a_room_is_direct_sound_and_a_tail_that_dies_away() -> None:
    for seed in range(20):
        response = room(seeded(seed))
        direct, tail = response[0], response[1:]
        assert direct == 1
        assert (tail[:31] == 0).all()  # 2 ms
        assert -16 < 10 * np.log10(np.square(tail).sum()) < 4
        assert np.square(tail[:4000]).sum() > np.square(tail[4000:]).sum()


def test_quantising_and_mu_law_by_hand() -> None:
    waveform = np.array([0.0, 0.3, -0.6, 1.0], np.float32)
    assert quantise(waveform, 0.5).tolist() == [0.0, 0.5, -0.5, 1.0]
    wave = tone(440, 0.5)
    error = mu_law(wave, 0.5) - wave
    assert decibels(wave.std() / error.std()) == pytest.approx(37.5, abs=2)  # what 8 bits of mu-law give
    assert len(set(mu_law(np.linspace(-1, 1, 10_001, dtype=np.float32), 1.0).tolist())) == 255
    quiet = 0.001 * wave
    assert decibels(quiet.std() / (mu_law(quiet, 0.5) - quiet).std()) > 3  # where 8 equal steps would leave nothing


def test_clipping_cuts_the_peaks() -> None:
    heard = degrade(tone(200, 1.0), seeded(), settings=replace(NOTHING, clipping=1.0))
    assert (np.abs(heard) > 0.999 * PEAK).mean() > 0.1


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_speed_changes_length_and_pitch_together(speed: float) -> None:
    changed = change_speed(tone(1000, 1.0), speed)
    assert len(changed) == int(RATE / speed)
    assert changed.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed))))
    assert spectrum.argmax() * RATE / len(changed) == pytest.approx(1000 * speed, abs=2)


def test_a_faster_clip_does_not_fold_back() -> None:
    high = tone(7800, 1.0)
    assert change_speed(high, 1.5).std() < 0.2 * high.std()
    assert change_speed(high, 1.0) is high


def test_silence_before_and_behind_is_that_of_a_room_or_none() -> None:
    waveform = tone(500, 0.5)
    digital = 0
    for seed in range(100):
        padded = pad(waveform, 1000, 2000, seeded(seed))
        assert len(padded) == len(waveform) + 3000
        assert np.abs(padded[1000:-2000] - waveform).max() < 0.05
        rest = np.concatenate((padded[:1000], padded[-2000:]))
        digital += not rest.any()
        assert not rest.any() or -110 < decibels(rest.std()) < -36
    assert 8 < digital < 35
    assert (pad(waveform, 0, 0, seeded()) == waveform).all()
