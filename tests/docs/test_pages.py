"""Every code block of the documentation, run as a reader would: in order, one folder a page.

- ``python`` blocks share one namespace; ``bash`` and ``console`` blocks run under
  ``set -euo pipefail`` with this interpreter's programs first on the path.
- A block whose first line is ``# file: NAME`` is written to NAME, whatever its language.
- Other languages (``text``, ``yaml``) are not run.
- ``<!-- slow -->`` anywhere in a page leaves it to ``EDGE_NAS_SLOW_TESTS=1``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_RUN = ("python", "bash", "console", "sh")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text and the line it begins on."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name in a first line ``# file: NAME``."""
        found = re.match(r"#\s*file:\s*(\S+)\s*\n", self.text)
        return found[1] if found else None


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    return [
        Block(found[1], found[2], page.count("\n", 0, found.start()) + 2)
        for found in _FENCE.finditer(page)
    ]


def commands(block: Block) -> str:
    """Return the shell commands of a block; of a console session, those after the prompt."""
    if block.language != "console":
        return block.text
    lines, going_on = [], False
    for line in block.text.splitlines():
        if going_on or line.startswith("$ "):
            lines.append(line if going_on else line[2:])
            going_on = line.endswith("\\")
    return "\n".join(lines)


def script(page: Path) -> str:
    """Return one Python program that does what the page's blocks say."""
    # A reader starts Python in the folder, so that files made there can be imported.
    out = ["import subprocess, sys; sys.path.insert(0, '')"]
    for block in blocks(page.read_text(encoding="utf-8")):
        at = f"{page.name}:{block.line}"
        if block.file is not None:
            out.append(
                f"import pathlib; _path = pathlib.Path({block.file!r}); "
                f"_path.parent.mkdir(parents=True, exist_ok=True); _path.write_text({block.text!r})"
            )
        elif block.language == "python":
            # Compiled under the page's name, with its own line numbers in the traceback.
            text = "\n" * (block.line - 1) + block.text
            out.append(f"exec(compile({text!r}, {str(page)!r}, 'exec'))")
        elif block.language in _RUN:
            text = "set -euo pipefail\n" + commands(block)
            out.append(
                f"_done = subprocess.run(['bash', '-c', {text!r}]); "
                f"assert _done.returncode == 0, {at!r} + ' ends with ' + str(_done.returncode)"
            )
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs_as_written(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    runnable = [b for b in blocks(text) if b.language in _RUN]
    if not runnable:
        pytest.skip("the page has no block to run")
    if "<!-- slow -->" in text and not os.environ.get("EDGE_NAS_SLOW_TESTS"):
        pytest.skip("a slow page; set EDGE_NAS_SLOW_TESTS=1")
    program = tmp_path / "page.py"
    program.write_text(script(page), encoding="utf-8")
    folder = tmp_path / "reader"
    folder.mkdir()
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"


def test_blocks_are_found_with_their_lines():
    page = "# A\n\n```python\nx = 1\n```\n\ntext\n\n```console\n$ echo a \\\n  b\nab\n$ true\n```\n"
    first, second = blocks(page)
    assert (first.language, first.text, first.line) == ("python", "x = 1\n", 4)
    assert commands(second) == "echo a \\\n  b\ntrue"


def test_a_named_block_is_a_file():
    (block,) = blocks("```yaml\n# file: a/job.yaml\nname: x\n```\n")
    assert block.file == "a/job.yaml"


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
