"""Damaged parts, the times of the file, several tracks."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pytest

from audio_files import encode, flipped
from helpers import encoded, speech, tone
from speech_emotion_vit import AudioError, ConfigError, EmotionClassifier
from speech_emotion_vit.audio.reader import AudioReader

SECONDS = 8.0
SPEECH = np.repeat(speech(SECONDS), 3)  # at 48 kHz


def read(source: Any, **options: Any) -> tuple[np.ndarray, AudioReader]:
    reader = AudioReader(source, **options)
    return np.concatenate(list(reader)), reader


def remarks(reader: AudioReader) -> list[str]:
    return [warning for warning in reader.warnings if not warning.startswith("clipped")]


@cache
def whole(form: str) -> bytes:
    return encode(form, SPEECH)


# Changed bytes, by their distance from the middle, of which the decoder of each refuses at least one.
@pytest.mark.parametrize("form", ["aac", "mka", "ts", "flac", "flv", "tta"])
def test_a_changed_byte_costs_one_packet_and_moves_nothing(form: str) -> None:
    good, _ = read(whole(form))
    said = set()
    for offset in range(0, 200, 18):
        samples, reader = read(flipped(whole(form), 0.5, offset))
        assert len(samples) == pytest.approx(len(good), abs=0.03 * 16_000)
        lost = {said for said in remarks(reader) if said.startswith("damaged")}
        if lost:  # else the demuxer has left out what it did not know
            late = slice(96_000, 120_000)
            assert np.abs(samples[late] - good[late]).max() < 0.02  # what follows keeps its time
        said |= lost
    assert said
    assert all(re.fullmatch(r"damaged: 1 (packet|frame) was lost after \d\.\d\d s, .* silent instead", s) for s in said)


def test_lost_packets_are_counted() -> None:
    data = whole("mka")
    for share in (0.2, 0.4, 0.6):
        data = flipped(flipped(data, share), share, 6)
    (warning,) = remarks(read(data)[1])
    assert re.match(r"damaged: [23456] packets were lost, the first after 1\.\d\d s", warning)


def test_a_damaged_flac_is_read_on_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speech_emotion_vit.audio.decode.EncodedAudio._open_with_av", lambda _: None)
    data = flipped(flipped(whole("flac"), 0.3), 0.6)
    samples, reader = read(data)
    assert len(samples) == pytest.approx(SECONDS * 16_000, abs=2)
    assert "damaged: 2 frames were lost, the first after" in reader.warnings[0]
    (warning,) = read(flipped(whole("opus"), 0.5))[1].warnings[:1]
    assert "pages of the Ogg stream are lost, and what follows them is early: pip install" in warning


def test_a_long_damaged_stretch_of_a_flac_is_passed() -> None:
    data = bytearray(whole("flac"))
    data[len(data) // 4 : len(data) // 2] = np.random.default_rng(0).bytes(len(data) // 2 - len(data) // 4)
    samples, reader = read(bytes(data))
    assert np.abs(samples - read(whole("flac"))[0])[-2 * 16_000 :].max() < 0.02
    assert any(warning.startswith("damaged: ") for warning in reader.warnings)


def test_a_damaged_mp3_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(SPEECH, 48_000, format="MP3", subtype="MPEG_LAYER_III")
    good, reader = read(data)
    assert remarks(reader) == []
    headers = [found.start() for found in re.finditer(rb"\xff\xfb", data)]
    header = headers[len(headers) // 2]
    for damaged in (
        data[:header] + b"\0" + data[header + 1 :],
        data[:header] + bytes(2000) + data[header + 2000 :],
        data[: header + 100] + data[header + 400 :],
    ):
        samples, reader = read(damaged)
        assert len(samples) == pytest.approx(len(good), abs=0.3 * 16_000)
        assert "damaged: 1 place is no MP3, and passed over" in remarks(reader)
        assert np.abs(samples[: 2 * 16_000] - good[: 2 * 16_000]).max() < 0.02
    monkeypatch.setattr("speech_emotion_vit.audio.decode.EncodedAudio._open_with_av", lambda _: None)
    assert any(said.startswith("truncated") for said in remarks(read(data[:header] + b"\0" + data[header + 1 :])[1]))


def test_a_wrong_size_in_the_index_of_an_m4a_is_corrected() -> None:
    data = whole("m4a")
    good, reader = read(data)
    assert remarks(reader) == []
    sizes = data.index(b"stsz") + 16  # four bytes each, the highest first
    for number in (5, 100, 300):
        for byte, bit in ((0, 128), (0, 1), (1, 64), (1, 1), (2, 128)):
            changed = bytearray(data)
            changed[sizes + 4 * number + byte] ^= bit
            samples, reader = read(bytes(changed))
            np.testing.assert_array_equal(samples, good)
            assert remarks(reader) == ["damaged: a wrong size in its index is corrected"]


def test_what_cannot_be_corrected_in_the_index_of_an_m4a_is_said() -> None:
    data = whole("m4a")
    sizes = data.index(b"stsz") + 16
    for number, byte in ((200, 3), (250, 3)):
        changed = bytearray(data)
        changed[sizes + 4 * number + byte] ^= 0x40
        samples, reader = read(bytes(changed))
        assert len(samples) < (SECONDS - 1) * 16_000
        assert any(re.match(r"truncated: \d\.\d\d of 8\.\d\d s could be read", said) for said in remarks(reader))


def hole(time: float) -> float:
    return time if time < 3 else time + 10


@pytest.mark.parametrize("form", ["m4a", "mka", "ts", "flv", "webm", "wma", "opus"])
def test_a_hole_is_filled_with_silence_and_what_follows_keeps_its_time(form: str) -> None:
    good, _ = read(whole(form))
    samples, reader = read(encode(form, SPEECH, shifts=[hole]))
    assert reader.duration == pytest.approx(SECONDS + 10, abs=0.1)
    assert not samples[4 * 16_000 : 12 * 16_000].any()
    tail = good[5 * 16_000 :]
    assert np.corrcoef(samples[-len(tail) :], tail)[0, 1] > 0.95
    (warning,) = remarks(reader)
    assert re.fullmatch(r"a hole of (9\.9|10\.0|10\.1)\d s, at [23]\.\d\d s: filled with silence", warning)


def test_several_holes_are_one_remark_and_small_gaps_are_none() -> None:
    samples, reader = read(encode("mka", SPEECH, shifts=[lambda t: t + 2 * int(t / 2)]))
    assert reader.duration == pytest.approx(SECONDS + 6, abs=0.1)
    (warning,) = remarks(reader)
    assert re.match(r"3 holes of 6\.0\d s, the first at [12]\.\d\d s", warning)
    samples, reader = read(encode("mka", SPEECH, shifts=[lambda t: t + 0.05 * (t > 3)]))
    assert len(samples) == pytest.approx(SECONDS * 16_000, abs=1000)
    assert remarks(reader) == []


@pytest.mark.parametrize("form", ["mp4", "mka", "ts"])
def test_sound_that_begins_late_in_a_film_is_late(form: str) -> None:
    samples, reader = read(encode(form, SPEECH, shifts=[lambda t: t + 5], pictures=7.0))
    assert reader.duration == pytest.approx(SECONDS + 5, abs=0.1)
    assert not samples[: round(4.9 * 16_000)].any()
    (warning,) = remarks(reader)
    assert re.match(r"begins (4\.9|5\.0)\d s after the pictures", warning)
    assert remarks(read(encode(form, SPEECH, pictures=7.0))[1]) == []


def test_times_that_only_one_frame_has_move_nothing() -> None:
    for odd in (100.0, 3000.0):
        samples, reader = read(encode("ts", SPEECH, shifts=[lambda t, odd=odd: t + odd * (2.99 < t < 3.011)]))
        assert len(samples) == pytest.approx(SECONDS * 16_000, abs=1000)
        assert remarks(reader) == []


def test_times_that_begin_anew_are_said_and_nothing_is_lost() -> None:
    """Hours of silence would help nobody, and no time can be before another."""
    first, rest = SPEECH[: 3 * 48_000], SPEECH[3 * 48_000 :]
    for first_at, rest_at in ((20, 0), (0, 20_000)):
        data = encode("ts", first, shifts=[lambda t, at=first_at: t + at])
        data += encode("ts", rest, shifts=[lambda t, at=rest_at: t + at])
        samples, reader = read(data)
        assert len(samples) == pytest.approx(SECONDS * 16_000, abs=1500)
        (warning,) = remarks(reader)
        assert re.fullmatch(r"its times jump at 3\.0\d s: taken as if nothing were missing there", warning)


def test_a_timeline_tells_the_times_of_the_file(classifier: EmotionClassifier) -> None:
    timeline = classifier.timeline(encode("m4a", SPEECH, shifts=[hole]))
    assert timeline.duration == pytest.approx(SECONDS + 10, abs=0.1)
    assert any("a hole of 10.0" in warning for warning in timeline.warnings)


TONES = [tone(frequency, 2.0, 48_000) for frequency in (300, 700, 1100)]


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples[8000:24_000]))
    return float(spectrum.argmax())  # Hz


@pytest.mark.parametrize("form", ["mka", "mp4", "ts"])
def test_every_track_can_be_chosen(form: str) -> None:
    data = encode(form, TONES)
    for number, frequency in enumerate((300, 700, 1100)):
        samples, reader = read(data, track=number)
        assert pitch(samples) == pytest.approx(frequency, abs=2)
        assert reader.warnings == ()
    samples, reader = read(data)
    assert pitch(samples) == pytest.approx(300, abs=2)
    assert reader.warnings == ("3 audio tracks, 0 to 2: 0 was heard, choose with track=",)
    with pytest.raises(AudioError, match="has 3 audio tracks, 0 to 2: track=3 is not there"):
        read(data, track=3)


@pytest.mark.parametrize("default", [0, 1, 2])
def test_the_default_flag_decides(default: int) -> None:
    data = encode("mka", TONES, default=default, titles=["a\nb", "Director", "c" * 1000])
    samples, reader = read(data)
    assert pitch(samples) == pytest.approx((300, 700, 1100)[default], abs=2)
    (warning,) = reader.warnings
    assert warning.startswith(f"3 audio tracks, 0 to 2: {default} ({('a', 'Director', 'cccc')[default]}")
    assert warning.isprintable()
    assert len(warning) < 120


@pytest.mark.parametrize("form", ["mka", "flac", "aac"])
def test_a_file_of_one_track_has_no_second(form: str) -> None:
    assert np.array_equal(read(whole(form), track=0)[0], read(whole(form))[0])
    with pytest.raises(AudioError, match="has one audio track, 0: track=1 is not there"):
        read(whole(form), track=1)


@pytest.mark.parametrize("track", [-1, True, 1.0, "0", "x" * 1000])
def test_tracks_that_are_none(track: Any) -> None:
    with pytest.raises(ConfigError, match="track must be None or a number from 0") as caught:
        read(whole("mka"), track=track)
    assert len(str(caught.value)) < 200


def test_an_array_has_no_tracks() -> None:
    assert len(read(TONES[0], sampling_rate=48_000, track=0)[0]) == 32_000
    with pytest.raises(AudioError, match="an array has no tracks"):
        read(TONES[0], sampling_rate=48_000, track=1)


def test_a_long_hole_is_silence_and_not_memory() -> None:
    data = encode("mka", SPEECH, shifts=[lambda t: t + 1000 * (t > 3)])
    samples = 0
    for block in AudioReader(data):
        assert len(block) < 1 << 17
        samples += len(block)
    assert samples == pytest.approx((1000 + SECONDS) * 16_000, abs=2000)
