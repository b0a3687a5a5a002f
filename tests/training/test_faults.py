"""Training on its worst day: killed, out of disk, with files that cannot be read, with a damaged cache."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from faults import limited, unprivileged
from faults.kill_training import RECIPE, command, finish, make_corpus, torture, weights
from speech_emotion_vit.cli import main

STUDENT = ("--stages", "student")
ALONE = {name: value for name, value in RECIPE.items() if not name.startswith(("teacher", "match"))}
ALONE |= {"student.alpha": 0}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def run(arguments: list[str]) -> tuple[int, str]:
    """Run in this process, with one thread as the others: their number decides the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = CliRunner().invoke(main, arguments[3:])  # without python -m speech_emotion_vit
    finally:
        torch.set_num_threads(threads)
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def quiet(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "quiet"
    status, text = run(command(table, output))
    assert status == 0, text
    return output


def fault(arguments: list[str], prefix: list[str] | None = None) -> str:
    """The last line of a command that failed with an error of its own."""
    status, text = finish(arguments, prefix) if prefix else run(arguments)
    assert status == 1, text
    assert "Traceback" not in text, text
    last = text.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


def test_a_run_killed_anywhere_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """The long form: ``python tests/faults/kill_training.py --times 30``."""
    counted = torture(times=1, seed=1, folder=tmp_path)
    assert counted["kills"] == 1
    assert counted["identical runs"] >= 1


def test_a_full_disk_keeps_the_last_good_checkpoint(table: Path, quiet: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    largest = max(output.stat().st_size for output in quiet.rglob("*.safetensors"))
    assert "cannot be written" in fault(command(table, output), limited(largest / 1e6 - 0.001))
    left = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert not [path for path in left if path.suffix == ".part"]
    assert (output / "run.json").is_file()
    status, text = run(command(table, output, "--resume"))
    assert status == 0, text
    assert weights(output) == weights(quiet)


def test_a_damaged_feature_cache_is_rebuilt(table: Path, quiet: Path, tmp_path: Path) -> None:
    for store in (table.parent / "cache").iterdir():
        for file in store.iterdir():
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])
    status, text = run(command(table, tmp_path / "run"))
    assert status == 0, text
    assert weights(tmp_path / "run") == weights(quiet)


def test_features_of_another_front_end_are_never_mixed_in(table: Path, quiet: Path, tmp_path: Path) -> None:
    other = command(table, tmp_path / "other", *STUDENT, changes=ALONE | {"frontend.top_db": 60})
    status, text = run(other)
    assert status == 0, text
    status, text = run(command(table, tmp_path / "run"))
    assert status == 0, text
    assert weights(tmp_path / "run") == weights(quiet)


def test_a_cache_that_cannot_be_written_is_named(table: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    arguments = command(table, tmp_path / "run", "--cache-dir", str(tmp_path / "closed"))
    assert "the feature cache cannot be written" in fault(arguments, unprivileged())
    arguments = command(table, tmp_path / "run", "--cache-dir", str(tmp_path / "new"))
    assert "the feature cache cannot be written" in fault(arguments, limited(0.01))


def test_unreadable_files_are_counted_or_stop_a_strict_run(tmp_path: Path) -> None:
    table = make_corpus(tmp_path / "corpus")
    clips = sorted((tmp_path / "corpus" / "audio").iterdir())
    clips[0].write_bytes(b"no audio")
    clips[1].write_bytes(b"")
    clips[2].write_bytes(clips[2].read_bytes()[:100])
    line = fault(command(table, tmp_path / "strict", "--strict", *STUDENT, changes=ALONE))
    assert clips[0].stem in line
    status, text = run(command(table, tmp_path / "run", *STUDENT, changes=ALONE))
    assert status == 0, text
    assert "3 " in text
    assert all(clip.stem in text for clip in clips[:3])
