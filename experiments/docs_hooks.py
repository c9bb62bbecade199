"""What the documentation takes from the results when it is built: a hook of mkdocs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

INDEX = Path(__file__).parent / "results" / "index.json"
CLAIMS = "<!-- claims -->"
_CLAIM_NAME = re.compile(r"`([a-z]+\.[a-z0-9_]+)`")


def on_config(config: Any) -> Any:
    """Put pages that ``nav`` does not name at its end, so that every page can be reached."""
    named = json.dumps(config["nav"])
    late = sorted(
        path.name for path in Path(config["docs_dir"]).glob("*.md") if f'"{path.name}"' not in named
    )
    if late:
        config["nav"] = [*config["nav"], {"Further pages": late}]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of recorded claims where a page asks for it, and values beside their names."""
    if CLAIMS not in markdown:
        return markdown
    claims = json.loads(INDEX.read_text(encoding="utf-8"))
    return with_values(markdown, claims).replace(CLAIMS, claims_table(claims))


def with_values(markdown: str, claims: dict[str, dict[str, Any]]) -> str:
    """Put the value of a claim before its name, wherever the name stands in a table as code.

    Raises:
        KeyError: a cell names a claim that was not recorded.
    """

    def valued(match: re.Match[str]) -> str:
        return f"{_text(claims[match[1]].get('value'))} (`{match[1]}`)"

    lines = markdown.split("\n")
    return "\n".join(
        _CLAIM_NAME.sub(valued, line) if line.startswith("|") else line for line in lines
    )


def claims_table(claims: dict[str, dict[str, Any]]) -> str:
    """Return every claim with value, target, whether it was met, and its file, as Markdown."""
    lines = ["| claim | value | target | met | raw results |", "| --- | --- | --- | --- | --- |"]
    for name, claim in sorted(claims.items()):
        met = "yes" if claim.get("met") else "**no**"
        target = "reported" if claim.get("target") is None else _text(claim["target"])
        cells = [name, _text(claim.get("value")), target, met]
        lines.append("| " + " | ".join([*cells, f"`{claim.get('file') or 'none'}`"]) + " |")
    return "\n".join(lines)


def _text(value: Any) -> str:
    if value is None:
        text = "not reached"
    elif isinstance(value, dict):
        text = ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(_text, value))
    elif isinstance(value, float):
        text = f"{value:.4g}"
    else:
        text = str(value)
    # A bar would end the cell, an angle bracket could begin markup.
    return re.sub(r"([|<>*_])", r"\\\1", text)
