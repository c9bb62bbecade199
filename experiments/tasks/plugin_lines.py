"""How many lines a task of one's own takes: the code of the documentation's page, which is tested.

python -m experiments.tasks.plugin_lines
"""

from __future__ import annotations

import re
from pathlib import Path

from experiments.results_index import record_claim

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tasks.md"


def lines() -> int:
    """Return the lines of the page's task, without empty ones and the name of the file.

    Raises:
        ValueError: the page has no such block.
    """
    found = re.search(r"```python\n# file: how_far_off.py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if found is None:
        raise ValueError(f"{PAGE} has no block how_far_off.py")
    return sum(bool(line.strip()) for line in found[1].splitlines())


def main() -> None:
    """Record the claim."""
    count = lines()
    record_claim(
        "task.plugin_lines",
        count,
        "<= 40",
        count <= 40,
        str(PAGE.relative_to(ROOT)),
        "python -m experiments.tasks.plugin_lines",
    )


if __name__ == "__main__":
    main()
