"""The hub's web page: one file, no network but the hub, no script but its own."""

from __future__ import annotations

import importlib.resources

from fastapi import FastAPI, Response

from devices.content_policy import content_policy


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``; the token is typed into it and stays in the browser's memory."""
    page = importlib.resources.files("devices.fleet.hub").joinpath("page.html").read_bytes()
    policy = content_policy(page.decode())

    @app.get("/")
    async def show() -> Response:
        return Response(page, media_type="text/html", headers={"content-security-policy": policy})
