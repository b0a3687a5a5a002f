"""Fill the generated parts of README.md: what ``predict`` prints, and the models of the manifest.

python scripts/update_readme.py          write them
python scripts/update_readme.py --check  exit 1 if they are out of date
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from speech_emotion_vit.manifest import load_manifest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def predict_table() -> str:
    """Return what the first command of the README prints at a terminal."""
    command = [sys.executable, "-m", "speech_emotion_vit", "predict", "examples/clips", "--format", "table"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return f"```\n{printed}```"


def model_table() -> str:
    """Return the models of the manifest with their scores."""
    manifest = load_manifest()
    lines = ["| model | emotions | trained on | score | protocol, test clips | size |", "|---|---|---|---|---|---|"]
    for name, entry in manifest.models.items():
        default = " (default)" if name == manifest.default else ""
        scores = "<br>".join(f"{metric.name} {metric.value:.1%}" for metric in entry.metrics)
        tests = "<br>".join(
            f"{metric.protocol}, {metric.clips} clips of {metric.speakers} speakers" for metric in entry.metrics
        )
        lines.append(
            f"| `{name}`{default} | {', '.join(entry.config.labels)} | {entry.trained_on} | {scores} | {tests} "
            f"| {entry.size_bytes / 1e6:.1f} MB |"
        )
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
        sys.exit("README.md is out of date: python scripts/update_readme.py" if before != after else 0)
    README.write_text(after, encoding="utf-8")
