"""What the documentation takes from the results when it is built: a hook of mkdocs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

INDEX = Path(__file__).parent / "results" / "index.json"
CLAIMS = "<!-- claims -->"


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
    """Put the table of recorded claims where a page asks for it."""
    if CLAIMS not in markdown:
        return markdown
    return markdown.replace(CLAIMS, claims_table(json.loads(INDEX.read_text(encoding="utf-8"))))


def claims_table(claims: dict[str, dict[str, Any]]) -> str:
    """Return every claim with value, target, whether it was met, and its file, as Markdown."""
    lines = ["| claim | value | target | met | raw results |", "| --- | --- | --- | --- | --- |"]
    for name, claim in sorted(claims.items()):
        met = "yes" if claim.get("met") else "**no**"
        cells = [name, _text(claim.get("value")), _text(claim.get("target")), met]
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
