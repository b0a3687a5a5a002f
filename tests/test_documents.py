"""Generated documents are what their generators make of what is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers import ROOT


@pytest.mark.parametrize("script", ["results", "update_readme"])
def test_a_generated_document_is_up_to_date(script: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / f"{script}.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
