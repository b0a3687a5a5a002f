"""Fill the generated parts of README.md: what ``predict`` prints, and the models of the manifest.

python tools/update_readme.py          write them
python tools/update_readme.py --check  exit 1 if they are out of date
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from speech_emotion_vit.weights.manifest import load_manifest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def predict_table() -> str:
    """Return what the first command of the README prints at a terminal."""
    command = [sys.executable, "-m", "speech_emotion_vit", "predict", "examples/clips", "--format", "table"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in printed.splitlines()[1:]]
    right = [Path(row[0]).stem for row in rows if Path(row[0]).stem == row[1]]
    return f"```\n{printed}```\n\nRight: {', '.join(right)}."


def model_table() -> str:
    """Return the models of the manifest with their scores in percent, one line per model and split."""
    manifest = load_manifest()
    lines = ["| model | emotions | size | scored on | UA (95 % interval) | WA | macro-F1 | ECE |", "|---" * 8 + "|"]
    for name, entry in manifest.models.items():
        default = " (default)" if name == manifest.default else ""
        tests: dict[tuple[Any, ...], dict[str, str]] = {
            (m.protocol, m.split, m.clips, m.speakers, m.note): {} for m in entry.metrics
        }
        for m in entry.metrics:
            interval = f" ({100 * m.interval[0]:.1f} to {100 * m.interval[1]:.1f})" if m.interval else ""
            tests[m.protocol, m.split, m.clips, m.speakers, m.note][m.name] = f"{100 * m.value:.1f}{interval}"
        for (protocol, split, clips, speakers, note), scores in tests.items():
            where = f"`{protocol}`, {split}: {clips} clips of {speakers} speakers{f', {note}' if note else ''}"
            cells = [scores.get("UA", ""), scores.get("WA", "").split(" ")[0], *map(scores.get, ("macro-F1", "ECE"))]
            about = f"`{name}`{default} | {len(entry.config.labels)} | {entry.size}"
            lines.append(f"| {about} | {where} | {' | '.join(cell or '' for cell in cells)} |")
    return "\n".join(lines)


def rendered(text: str) -> str:
    """Return the README's text with its generated parts made anew."""
    for name, content in (("predict", predict_table()), ("models", model_table())):
        pattern = re.compile(rf"(<!-- {name}:begin [^\n]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, new=content: f"{match[1]}{new}\n{match[2]}", text)
        if count != 1:
            sys.exit(f"README.md has {count} parts named {name}, expected 1")
    return text


if __name__ == "__main__":
    before = README.read_text(encoding="utf-8")
    after = rendered(before)
    if "--check" in sys.argv[1:]:
        sys.exit("README.md is out of date: python tools/update_readme.py" if before != after else 0)
    README.write_text(after, encoding="utf-8")
