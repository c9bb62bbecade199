"""What the report shows of studies of a run: their files, and tables as HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError


def load_study_file(run: Path, name: str, key: str, command: str) -> dict[str, Any] | None:
    """Return the content of ``RUN/studies/NAME``, or None where there is none.

    Args:
        run: its folder.
        name: of the file.
        key: of a list that it holds.
        command: that writes it, for the message.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(run) / "studies" / name
    if not path.is_file():
        return None
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is damaged ({error}); delete it, or do the study again"
        ) from error
    if not isinstance(study, dict) or not isinstance(study.get(key), list):
        raise InputError(f"{path} is no result of {command}; delete it, or do it again")
    return study


def scroll_table(label: str, heads: Iterable[str], rows: Iterable[str], id: str = "") -> str:
    """Return a table that scrolls in a narrow window, as HTML; ``rows`` are HTML already."""
    head = "".join(f"<th scope='col'>{escape(text)}</th>" for text in heads)
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(label)}'>"
        f"<table{f' id={id!r}' if id else ''}><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
