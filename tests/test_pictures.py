"""Pictures say what they show: colours, times, names, silence."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.colors import to_hex, to_rgb

from helpers import CLIPS
from speech_emotion_vit import ConfigError, Prediction, Segment, Timeline
from speech_emotion_vit.cli import main
from speech_emotion_vit.pictures import COLOURS, colours, minutes

LABELS = ("anger", "boredom", "fear", "sadness")
# Machado, Oliveira and Fernandes 2009: what is seen with all cones, without green ones, without red ones.
SIGHT = {
    "all": np.eye(3),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def timeline(count: int, quiet: range = range(0)) -> Timeline:
    rows = np.random.default_rng(0).dirichlet(np.ones(4), count)
    segments = [
        Segment(i, i + 4.0, dict(zip(LABELS, map(float, row), strict=True)), 0.0 if i in quiet else 3.0)
        for i, row in enumerate(rows)
    ]
    return Timeline(tuple(segments), "/far/away/call.wav", count + 3.0, "base@0123456789ab")


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_can_be_told_apart(sight: str) -> None:
    def lab(colour: str) -> np.ndarray:
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(SIGHT[sight] @ linear, 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
        x, y, z = np.cbrt(np.maximum(xyz / [0.9505, 1, 1.089], 1e-9))
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    distances = [np.linalg.norm(lab(a) - lab(b)) for a, b in itertools.combinations(COLOURS.values(), 2)]
    assert min(distances) > 30


def test_an_emotion_has_its_colour_whatever_the_model() -> None:
    red, blue = (to_rgb(COLOURS[name]) for name in ("anger", "sadness"))
    assert red[0] > 3 * max(red[1:])
    assert blue[2] > 2 * max(blue[:2])
    assert colours(["sad", "Angry", "x", "y"]) == {
        "sad": COLOURS["sadness"],
        "Angry": COLOURS["anger"],
        **dict(zip("xy", list(colours("xy").values()), strict=True)),
    }
    assert len(set(colours([*COLOURS, *"abc"]).values())) == len(COLOURS) + 3


def test_a_timeline_says_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    figure = timeline(30, range(10, 20)).plot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
    curves, strip = figure.axes
    assert figure.get_suptitle() == "call.wav, base"
    assert [to_hex(line.get_color()) for line in curves.get_lines()] == [COLOURS[label] for label in LABELS]
    assert [text.get_text() for text in curves.get_legend().get_texts()] == [*LABELS, "nobody speaks"]
    (quiet,) = curves.patches
    assert (quiet.get_x(), quiet.get_x() + quiet.get_width()) == (11.5, 21.5)
    assert strip.get_xlabel() == "minutes:seconds"
    figure.canvas.draw()
    assert "0:10" in [text.get_text() for text in strip.get_xticklabels()]
    with pytest.raises(ConfigError, match=r"a picture is \.png, \.svg or \.pdf"):
        timeline(3).plot(tmp_path / "picture.bmp")


def test_an_hour_is_areas_of_150_means_at_most() -> None:
    curves, _ = timeline(3600, range(900, 1000)).plot().axes
    assert len(curves.get_lines()) == 0
    assert len(curves.collections) == len(LABELS)
    assert len(np.unique(curves.collections[0].get_paths()[0].vertices[:, 0])) <= 150


def test_speakers_have_rows() -> None:
    given = Timeline(
        (
            Segment(0, 2, dict(zip(LABELS, (0.7, 0.1, 0.1, 0.1), strict=True)), 2.0, speaker="B$x$"),
            Segment(1, 3, dict.fromkeys(LABELS, 0.0), 0.0, speaker=None),
        ),
        "f.wav",
        3.0,
        "m@1",
        given=True,
    )
    (axes,) = given.plot().axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["B$x$", "-"]
    assert to_hex(axes.collections[0].get_facecolor()[0]) == COLOURS["anger"]


def test_minutes() -> None:
    assert [minutes(s) for s in (0, 0.5, 59.96, 62, 3600, 3723.4)] == [
        "0:00",
        "0:00.5",
        "1:00",
        "1:02",
        "1:00:00",
        "1:02:03.4",
    ]


def test_answers_are_written_to_paths(tmp_path: Path) -> None:
    made = timeline(3)
    for name in ("csv", "json", "webvtt"):
        text = getattr(made, f"to_{name}")(tmp_path / name)
        assert (tmp_path / name).read_text().rstrip() == text.rstrip()
    prediction = Prediction({"a": 0.25, "b": 0.75}, 1.0, 1.0, "m@1")
    prediction.to_json(tmp_path / "p.json", indent=2)
    assert json.loads((tmp_path / "p.json").read_text()) == prediction.to_dict()
    with pytest.raises(ConfigError, match="cannot be written"):
        made.to_csv(tmp_path / "nowhere" / "x.csv")
    assert not list(tmp_path.glob(".*"))


def test_the_command_line_draws_a_timeline(tmp_path: Path) -> None:
    def predict(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["predict", "--backend", "onnx", str(CLIPS[0]), *map(str, arguments)])
        return done.exit_code, done.stderr

    assert predict("--timeline", "--smoothing", 2, "--plot", tmp_path / "p.svg")[0] == 0
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    assert predict("--segments", tmp_path / "none.srt", "--plot", tmp_path / "q.png")[0] == 1
    assert "--plot goes with --timeline" in predict("--plot", tmp_path / "p.png")[1]
    assert "a picture is of one recording" in predict(CLIPS[1], "--timeline", "--plot", tmp_path / "p.png")[1]
