"""What mkdocs does to the pages of the site while it builds them: put in what is generated, and what lies elsewhere.

``<!-- table: NAME -->`` becomes a generated part, see `tables.table`.
``<!-- include: FILE -->`` becomes a page of the repository's root, with links that work from the site.
``<!-- readme: NAME -->`` becomes a generated part of README.md, so that home page and README say the same.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tables import ROOT, table

REPOSITORY = "https://github.com/speech-emotion-vit/speech-emotion-vit/blob/main/"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page's text with its placeholders filled."""
    markdown = re.sub(r"<!-- include: (\S+) -->", lambda match: included(match[1]), markdown)
    markdown = re.sub(r"<!-- readme: (\S+) -->", lambda match: of_readme(match[1]), markdown)
    return re.sub(
        r"^( *)<!-- table: ([^>]+?) -->", lambda match: indent(table(match[2]), match[1]), markdown, flags=re.MULTILINE
    )


def on_post_page(output: str, **_: Any) -> str:
    """Return a page that asks no other server: the theme would ask GitHub for the number of stars."""
    return output.replace(' data-md-component="source"', "")


def included(name: str) -> str:
    """Return a page of the repository's root: links into docs become links of the site, others go to the repository."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/([\w/.-]+\.md(#[\w-]+)?)\)", r"](\1)", text)
    return re.sub(r"\]\((?!https?:|#)([\w./-]+)\)", lambda match: f"]({linked(match[1])})", text)


def linked(target: str) -> str:
    """Return where a relative link of an included page goes."""
    return target if (ROOT / "docs" / target).is_file() else REPOSITORY + target


def of_readme(name: str) -> str:
    """Return a generated part of README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name}:begin[^\n]*-->\n(.*?)\n<!-- {name}:end -->", text, re.DOTALL)
    if found is None:
        sys.exit(f"README.md has no part named {name}")
    return found[1]
