"""Text for a terminal, and from one."""

from __future__ import annotations

import shlex
from pathlib import Path

from search_spaces.terminal import quoted


def test_a_command_with_a_path_can_be_copied():
    assert quoted(Path("runs/digits")) == "runs/digits"
    assert shlex.split(f"nas run {quoted('my job ä.yaml')}") == ["nas", "run", "my job ä.yaml"]
