"""What a run found, for people: the report page, ``front.csv`` and the comparison of two runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.report.comparison import Comparison

__all__ = ["compare", "write_report"]


def write_report(run: Path) -> Path:
    """Write ``RUN/report.html`` and ``RUN/front.csv`` from ``RUN/results.json``.

    Args:
        run: folder of a finished run.

    Returns:
        The path of the page: one file that needs no network.

    Raises:
        InputError: the folder has no readable ``results.json``, or a damaged result of
            ``nas study value`` or ``nas study sparsity``, or ``examples.json``.
    """
    from nas.report.examples import load_examples
    from nas.report.family import load_study
    from nas.report.front import write_front_csv
    from nas.report.page import render
    from nas.report.pruned import load_pruned
    from nas.report.results import load_results
    from search_spaces.atomic import write_text_atomic

    run = Path(run)
    results = load_results(run)
    page = render(results, load_study(run), load_examples(run), load_pruned(run))
    write_front_csv(results, run / "front.csv")
    write_text_atomic(run / "report.html", page)
    return run / "report.html"


def compare(a: Path, b: Path) -> Comparison:
    """Say how far the fronts of two runs agree; ``str()`` of the result is the text to print.

    Raises:
        InputError: a folder without results, an empty front, or no objective in common.
    """
    from nas.report.comparison import compare_results
    from nas.report.results import load_results

    return compare_results(load_results(a), load_results(b), names=(str(a), str(b)))
