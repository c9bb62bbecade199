"""The hub's web page: one file, no network but the hub, no script but its own."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re

from fastapi import FastAPI, Response


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``; the token is typed into it and stays in the browser's memory."""
    page = importlib.resources.files("devices.fleet.hub").joinpath("page.html").read_bytes()
    policy = _content_policy(page.decode())

    @app.get("/")
    async def show() -> Response:
        return Response(page, media_type="text/html", headers={"content-security-policy": policy})


def _content_policy(page: str) -> str:
    """Return a policy under which only the page's own script and style run."""

    def hashed(tag: str) -> str:
        found = re.search(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digest = hashlib.sha256((found.group(1) if found else "").encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    return (
        f"default-src 'none'; script-src {hashed('script')}; style-src {hashed('style')}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
