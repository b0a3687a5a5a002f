"""Many machines: a worker's batch by itself, and, with the marker ray, a cluster of two nodes that loses a worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from helpers import CLIPS, ROOT
from speech_emotion_vit import ConfigError, EmotionClassifier
from speech_emotion_vit.cli import main
from speech_emotion_vit.cluster import _Worker, predict_on_ray

MODEL = "crema-d-paper"  # the smallest


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a folder of answers by file; none is there twice."""
    rows = pads.dataset(folder).to_table().to_pylist() if folder.exists() else []
    found = {row["file"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_worker_writes_its_answers_once(tmp_path: Path) -> None:
    worker = _Worker(str(tmp_path / "out"), "file", "file", {"model": MODEL}, {})
    batch = pa.table({"file": [*map(str, CLIPS), str(tmp_path / "none.wav")], "person": list("abcdefg")})
    for _ in range(2):  # Ray does again what a worker did not report
        assert worker(batch).to_pydict() == {"answered": [6], "failed": [1]}
    rows = read(tmp_path / "out")
    expected = EmotionClassifier(MODEL).predict_batch(CLIPS)
    for clip, person, prediction in zip(CLIPS, "abcdef", expected, strict=True):
        row = rows[str(clip)]
        assert (row["label"], row["person"], row["model"]) == (prediction.label, person, prediction.model)
        assert {name: row[name] for name in prediction.probabilities} == pytest.approx(prediction.probabilities)
        assert (row["duration"], row["speech"]) == (prediction.duration, prediction.speech)
    (failed,) = pads.dataset(sorted((tmp_path / "out" / "_failed").iterdir())).to_table().to_pylist()
    assert failed == {"file": str(tmp_path / "none.wav"), "error": f"{tmp_path}/none.wav: no such file: check the path"}


def test_contents_are_known_by_their_digest(tmp_path: Path) -> None:
    worker = _Worker(str(tmp_path), "audio", "sha256", {"model": MODEL}, {"threshold": 0.999})
    rows = [{"path": "one.flac", "bytes": CLIPS[0].read_bytes()}, {"path": "one.flac", "bytes": CLIPS[1].read_bytes()}]
    worker(pa.table({"audio": rows, "label": ["x", "y"]}))
    (part,) = tmp_path.glob("*.parquet")
    table = pq.read_table(part).to_pydict()
    assert table["file"] == ["one.flac"] * 2
    assert len(set(table["sha256"])) == 2
    assert table["label"] == [None, None]  # none is that sure
    assert table["label_given"] == ["x", "y"]


def test_what_cannot_be_the_output_or_the_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "texts.parquet")
    (tmp_path / "broken.parquet").write_text("none")
    for source, output, said in [
        (CLIPS[0].parent, tmp_path / "full", "is not empty: choose another folder, or resume with --resume"),
        (CLIPS[0].parent, tmp_path / "texts.parquet", "is no folder"),
        (tmp_path / "full", tmp_path / "out", "holds neither audio nor Parquet"),
        (tmp_path / "texts.parquet", tmp_path / "out", r"no column of audio \(text\)"),
        (tmp_path / "broken.parquet", tmp_path / "out", "cannot be read as Parquet"),
    ]:
        with pytest.raises(ConfigError, match=said):
            next(predict_on_ray(source, output, model={"model": MODEL}))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ray", "clip.wav", "--output", "out"], "put CLIP before --ray"),
        (["--ray"], "goes with --output, a folder"),
        (["--output", "out", "--timeline", "--ray"], "--timeline or --segments does not go with --ray"),
        (["--output", "out", "--channel", "split", "--ray"], "--channel split does not go with --ray"),
    ],
)
def test_the_command_line_says_what_does_not_go_together(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["predict", str(CLIPS[0]), *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def workers() -> list[int]:
    """The processes of Ray that hold a model, by the names that Ray gives them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::MapWorker") and b"_Worker" in title and b"__init__" not in title:
            found.append(int(path.parent.name))
    return found


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_nodes_lose_a_worker_and_no_answer(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(20):
        for clip in CLIPS:
            (folder / f"{number}-{clip.name}").symlink_to(clip)
    (folder / "broken.wav").write_text("no audio")
    labels = {clip.name: p.label for clip, p in zip(CLIPS, EmotionClassifier(MODEL).predict_batch(CLIPS), strict=True)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        killed = 0
        for progress in predict_on_ray(folder, tmp_path / "out", model={"model": MODEL}, recordings=4):
            if progress.answered and not killed and (found := workers()):
                os.kill(killed := found[0], signal.SIGKILL)
        assert killed
        assert (progress.total, progress.before, progress.answered, progress.failed) == (121, 0, 120, 1)
        rows = read(tmp_path / "out")
        assert {Path(name).name: row["label"] for name, row in rows.items()} == {
            f"{number}-{name}": label for number in range(20) for name, label in labels.items()
        }

        # Some parts are lost, and the rest is done by the command line; what failed is tried again.
        for part in sorted((tmp_path / "out").glob("*.parquet"))[:3]:
            part.unlink()
        kept = len(read(tmp_path / "out"))
        command = [sys.executable, "-m", "speech_emotion_vit", "predict", folder, "--model", MODEL, "--resume"]
        command += ["--output", tmp_path / "out", "--ray", cluster.address]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 1
        assert f"121 files: {120 - kept} answered, {kept} before, 1 failed" in done.stderr
        assert "Traceback" not in done.stderr
        assert read(tmp_path / "out").keys() == rows.keys()

    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.ray
def test_an_address_without_a_cluster_is_refused_at_once(tmp_path: Path) -> None:
    for address in (f"127.0.0.1:{closed_port()}", f"ray://127.0.0.1:{closed_port()}"):
        with pytest.raises(ConfigError, match=f"no Ray cluster at {address} .*: start one with ray start"):
            next(predict_on_ray(CLIPS, tmp_path / "out", address=address, model={"model": MODEL}))


@pytest.mark.ray
def test_the_address_of_a_cluster_that_has_ended_is_passed_over(tmp_path: Path) -> None:
    # Parquet with contents, as the Hub has it, by the example, which starts a cluster of its own.
    clips = datasets.Dataset.from_dict({"audio": [{"path": c.name, "bytes": c.read_bytes()} for c in CLIPS]})
    clips.to_parquet(tmp_path / "clips.parquet")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the names of Ray's sockets must be short
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{closed_port()}")
        command = [sys.executable, ROOT / "examples/on_a_cluster.py", tmp_path / "clips.parquet", tmp_path / "out"]
        environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_ADDRESS": ""}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert sum(int(line.split(": ")[1]) for line in done.stdout.splitlines()) == 6
    assert read(tmp_path / "out").keys() == {clip.name for clip in CLIPS}
