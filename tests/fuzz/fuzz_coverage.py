"""Let atheris search for audio that breaks `AudioReader`, guided by the branches it reaches in this package.

    pip install atheris
    python tests/fuzz/fuzz_coverage.py corpus -max_total_time=3600 -max_len=20000

The corpus folder is begun with one small file of every container and keeps what reached new branches; what breaks is
left as ``crash-*``, to be tried with ``fuzz_audio.py --file``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
import inputs

with atheris.instrument_imports(include=["speech_emotion_vit"]):
    from speech_emotion_vit.audio.reader import AudioReader
    from speech_emotion_vit.errors import AudioError


def attempt(data: bytes) -> None:
    """Read everything; whatever is no `AudioError` is a finding."""
    try:
        reader = AudioReader(data)
        seconds = sum(map(len, reader)) / reader.target_rate
    except AudioError:
        return
    assert 0 < seconds < 1e6


if __name__ == "__main__":
    folder = Path(next((word for word in sys.argv[1:] if not word.startswith("-")), "corpus"))
    folder.mkdir(exist_ok=True)
    for number, (suffix, content) in enumerate(inputs.seeds()):
        (folder / f"seed-{number}.{suffix}").write_bytes(content)
    atheris.Setup(sys.argv, attempt)
    atheris.Fuzz()
