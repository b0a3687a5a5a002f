from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpus_factory import RATE, labelled_csv, labelled_folder, write_clip
from helpers import speech
from speech_emotion_vit.errors import DatasetError
from speech_emotion_vit.model.config import FrontendConfig
from speech_emotion_vit.model.frontend import LogMel
from speech_emotion_vit.training.data import features
from speech_emotion_vit.training.data.corpora import Utterance, read_folder
from speech_emotion_vit.training.data.features import (
    load_features,
    load_speech,
    load_waveforms,
    make_images,
    read_waveform,
)
from speech_emotion_vit.training.data.rows import ImageRows, Rows
from speech_emotion_vit.windows import ClipWindows

CONFIG = FrontendConfig(n_mels=32, columns=32)
DEVICE = torch.device("cpu")


def of(store: features.Store, utterance: Utterance) -> np.ndarray:
    """What a store has of one utterance."""
    first, last = store.rows[utterance.id]
    return np.asarray(store.values[first:last])


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    return read_folder(labelled_folder(tmp_path / "corpus", ["anger", "neutral"], 3))


def test_features_are_the_front_ends_images_in_half_precision(tmp_path: Path, utterances: list[Utterance]) -> None:
    store = load_features(utterances, CONFIG, cache=tmp_path / "cache")
    assert store.values.shape == (6, 32, 32)
    assert store.values.dtype == np.float16
    assert isinstance(store.values, np.memmap)
    for utterance in utterances:
        first, last = store.rows[utterance.id]
        waveform = torch.from_numpy(read_waveform(utterance.path, RATE))[None]
        image = LogMel(CONFIG)(waveform)[0, 0].numpy()
        assert last == first + 1
        assert np.abs(store.values[first] - image).max() < 5e-4  # 0.04 dB of 80
        assert ((store.values[first] == 0) == (image == 0)).all()


def test_half_precision_does_not_change_what_a_network_says(tmp_path: Path, utterances: list[Utterance]) -> None:
    from speech_emotion_vit.model.config import ModelConfig
    from speech_emotion_vit.model.vit import SpectrogramViT

    shape = ModelConfig(num_classes=6, image_height=32, image_width=32, patch_height=32)
    network = SpectrogramViT(shape).eval()
    store = load_features(utterances, CONFIG, cache=tmp_path / "cache")
    exact = torch.cat([LogMel(CONFIG)(torch.from_numpy(read_waveform(u.path, RATE))[None]) for u in utterances])
    with torch.no_grad():
        difference = network(exact) - network(torch.from_numpy(np.array(store.values)).float().unsqueeze(1))
    assert difference.abs().max() < 5e-3


def test_a_store_is_made_once_and_again_when_anything_changes(tmp_path: Path, utterances: list[Utterance]) -> None:
    cache = tmp_path / "cache"

    def made(clips: list[Utterance], config: FrontendConfig) -> tuple[str, bool]:
        before = {path: path.stat().st_mtime_ns for path in cache.glob("*/*")}
        key = load_features(clips, config, cache=cache).key
        return key, before != {path: path.stat().st_mtime_ns for path in cache.glob("*/*")}

    first, new = made(utterances, CONFIG)
    assert new
    assert made(utterances, CONFIG) == (first, False)
    shifted = [utterance.altered("shift") for utterance in utterances]
    found = [made(utterances, FrontendConfig(n_mels=32, columns=32, top_db=60.0)), made(shifted, CONFIG)]
    write_clip(utterances[0].path, "fear", seed=9)
    found.append(made(utterances, CONFIG))
    assert all(new for _, new in found)
    assert len({first, *(key for key, _ in found)}) == 4


def test_an_interrupted_build_leaves_no_store(
    tmp_path: Path, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(features, "make_images", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_features(utterances, CONFIG, cache=cache)
    assert list(cache.iterdir()) == []
    (cache / ".part-killed").mkdir()  # what SIGKILL would leave
    assert len(load_features(utterances, CONFIG, cache=cache).rows) == 6


def test_another_process_may_finish_meanwhile(
    tmp_path: Path, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [tmp_path / ".part-renamed"])
    assert len(load_features(utterances, CONFIG, cache=tmp_path / "cache").rows) == 6


@pytest.mark.skipif(sys.platform == "win32", reason="rights are of POSIX")
def test_a_cache_can_be_shared(tmp_path: Path, utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o022)
    try:
        store = load_features(utterances, CONFIG, cache=tmp_path / "cache")
    finally:
        os.umask(before)
    folder = tmp_path / "cache" / store.key
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "index.json")] == [0o755, 0o644]
    (folder / "index.json").write_text("{}")
    monkeypatch.setattr(features.shutil, "rmtree", lambda *arguments, **options: None)  # another user's
    with pytest.raises(DatasetError, match=r"cannot be used .*: remove it, or set SPEECH_EMOTION_VIT_CACHE"):
        load_features(utterances, CONFIG, cache=tmp_path / "cache")


def test_unreadable_files_are_named_and_left_out(tmp_path: Path, utterances: list[Utterance]) -> None:
    utterances[1].path.write_bytes(b"this is not audio")
    utterances[2].path.write_bytes(b"")
    store = load_features(utterances, CONFIG, cache=tmp_path / "cache")
    assert set(store.faults) == {utterances[1].id, utterances[2].id}
    assert str(utterances[1].path) in store.faults[utterances[1].id]
    assert len(store.values) == len(store.rows) == 4


def test_what_could_not_be_read_is_tried_again_by_other_decoders(tmp_path: Path, utterances: list[Utterance]) -> None:
    utterances[0].path.write_bytes(b"no audio")
    store = load_features(utterances, CONFIG, cache=tmp_path / "cache")
    assert set(store.faults) == {utterances[0].id}
    assert set(store.contents) == set(store.rows)
    path = tmp_path / "cache" / store.key / "index.json"
    made = path.stat().st_mtime_ns
    load_features(utterances, CONFIG, cache=tmp_path / "cache")
    assert path.stat().st_mtime_ns == made
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"decoders": ["soundfile of old"]}))
    assert load_features(utterances, CONFIG, cache=tmp_path / "cache").faults == store.faults
    assert json.loads(path.read_text()) == index


def test_nothing_readable_and_an_unwritable_cache_are_errors(tmp_path: Path, utterances: list[Utterance]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="set SPEECH_EMOTION_VIT_CACHE to another folder"):
        load_features(utterances, CONFIG, cache=tmp_path / "file")
    for utterance in utterances:
        utterance.path.write_bytes(b"x")
    with pytest.raises(DatasetError, match="none of 6 files can be read"):
        load_features(utterances, CONFIG, cache=tmp_path / "cache")


def test_other_rates_and_channels_give_the_same_image(tmp_path: Path) -> None:
    time = np.arange(RATE * 3) / (3 * RATE)
    wave = 0.3 * np.sin(2 * np.pi * 500 * time)
    soundfile.write(tmp_path / "stereo.wav", np.stack((wave, wave), axis=1), 3 * RATE)
    soundfile.write(tmp_path / "mono.flac", wave[::3], RATE)
    images = [make_images(read_waveform(tmp_path / name, RATE), LogMel(CONFIG)) for name in ("stereo.wav", "mono.flac")]
    loud = images[1] > 0.6  # the tone itself; below it are the edges of the resampler
    assert loud.any()
    assert np.abs(images[0].astype(float) - images[1])[loud].max() < 0.05


@pytest.mark.parametrize(("long_clips", "rows"), [("windows", 3), ("truncate", 1)])
def test_long_clips_are_cut_as_the_config_says(tmp_path: Path, long_clips: str, rows: int) -> None:
    config = FrontendConfig(n_mels=32, columns=32, long_clips=long_clips)  # type: ignore[arg-type]
    write_clip(tmp_path / "a.wav", "anger", seconds=7.0)
    images = make_images(read_waveform(tmp_path / "a.wav", RATE), LogMel(config))
    assert len(images) == rows


def rows_of(tmp_path: Path, count: int = 12) -> Rows:
    root = labelled_csv(tmp_path / "corpus", ["anger", "fear"], ["p", "q"], count // 4)
    write_clip(root.parent / "audio" / "p_fear_0.flac", "fear", seconds=5.0)
    utterances = read_folder(root)
    both = [u.altered(version) for u in utterances for version in ("original", "shift")]
    return ImageRows(both, load_features(both, CONFIG, cache=tmp_path / "cache"), ["anger", "fear"], device=DEVICE)


def test_rows_know_their_clips_targets_and_lengths(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    assert len(rows.utterances) == 24
    assert len(rows) == 26  # the long clip has two windows in each version
    assert all(
        ("fear" in rows.utterances[clip].id) == target for clip, target in zip(rows.owners, rows.targets, strict=True)
    )
    images = rows.inputs(np.arange(len(rows)))[0]
    assert images.shape == (26, 1, 32, 32)
    assert rows.lengths.tolist() == (images.amax(dim=(1, 2)) > 0).sum(dim=1).tolist()


def test_an_epoch_sees_every_row_once_in_even_batches_of_similar_length(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 40)
    batches = rows.shuffled(8, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(rows)))
    assert {len(batch) for batch in batches} <= {7, 8}
    again = rows.shuffled(8, np.random.default_rng(0))
    assert all((one == other).all() for one, other in zip(batches, again, strict=True))
    other = rows.shuffled(8, np.random.default_rng(1))
    assert any(set(one.tolist()) != set(two.tolist()) for one, two in zip(batches, other, strict=True))
    spread = np.mean([np.ptp(rows.lengths[batch]) for batch in batches])
    assert spread < np.ptp(rows.lengths) / 2
    ordered = rows.lengths[np.concatenate(rows.by_length(8))]
    assert (np.diff(ordered) >= 0).all()


def test_unreadable_items_are_left_out_of_rows(tmp_path: Path, utterances: list[Utterance]) -> None:
    utterances[0].path.write_bytes(b"")
    store = load_features(utterances, CONFIG, cache=tmp_path / "cache")
    labels = ["anger", "neutral"]
    assert ImageRows(utterances, store, labels, device=DEVICE).utterances == utterances[1:]
    with pytest.raises(DatasetError, match="none of 1 clips"):
        ImageRows(utterances[:1], store, labels, device=DEVICE)


def test_the_index_is_plain_json(tmp_path: Path, utterances: list[Utterance]) -> None:
    store = load_features(utterances, CONFIG, cache=tmp_path / "cache")
    index = json.loads((tmp_path / "cache" / store.key / "index.json").read_text())
    assert index["about"]["frontend"] == CONFIG.to_dict()
    assert "/" not in "".join(index["rows"]).replace("anger/", "").replace("neutral/", "")  # no path of this machine


def test_waveforms_are_16_bit_whole_and_at_full_scale(tmp_path: Path, utterances: list[Utterance]) -> None:
    utterances[3].path.write_bytes(b"")
    store = load_waveforms(utterances, RATE, cache=tmp_path / "cache")
    assert (store.values.dtype, len(store.rows), set(store.faults)) == (np.int16, 5, {utterances[3].id})
    for utterance in utterances[:3]:
        stored, waveform = of(store, utterance).astype(np.float32), read_waveform(utterance.path, RATE)
        assert np.abs(stored).max() == 32767
        waveform -= waveform.mean()
        assert np.abs(stored / 32767 * np.abs(waveform).max() - waveform).max() < 1e-5
    with pytest.raises(KeyError):
        of(store, utterances[3])


def test_silence_has_a_waveform(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zeros.wav", np.zeros(100), RATE)
    clip = Utterance(id="zeros", path=tmp_path / "zeros.wav", label="", speaker="")
    assert not of(load_waveforms([clip], RATE, cache=tmp_path / "cache"), clip).any()


def test_what_is_heard_in_training_is_what_a_prediction_hears(tmp_path: Path) -> None:
    pause, tone = np.zeros(RATE, np.float32), np.sin(np.arange(RATE) / 3).astype(np.float32)
    clips = []
    voice = np.concatenate((pause, speech(2.0), pause))
    for name, samples in (("voice", voice), ("tone", np.concatenate((tone, pause))), ("nothing", pause)):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
        clips.append(Utterance(id=name, path=tmp_path / f"{name}.wav", label="", speaker=""))
    store = load_speech(clips, RATE, cache=tmp_path / "cache")
    (window,) = ClipWindows([read_waveform(clips[0].path, RATE)], FrontendConfig.frames(), vad_filter=True)
    expected = np.trim_zeros(window.samples / np.abs(window.samples).max(), "b")
    np.testing.assert_allclose(of(store, clips[0]), expected, atol=1e-6)
    assert len(expected) < 3 * RATE
    assert len(of(store, clips[1])) == RATE  # nobody speaks: all there is, but for the zeros behind it
    assert not of(store, clips[2]).any()
