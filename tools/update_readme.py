"""Fill the generated parts of README.md, each between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.

python tools/update_readme.py          write them
python tools/update_readme.py --check  exit 1 if they are out of date
"""

from __future__ import annotations

import re
import sys

from tables import ROOT, python_block, table

README = ROOT / "README.md"


def rendered(text: str) -> str:
    """Return the README's text with its generated parts made anew."""
    for name in ("example", "models", "speed"):
        pattern = re.compile(rf"(<!-- {name}:begin[^\n]*-->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        content = python_block(text) if name == "example" else table(name)
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
