"""Starts an agent as a program: folders, lock, signals."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType

from devices.fleet.agent.agent import Agent
from devices.fleet.agent.config import AgentConfig
from devices.fleet.agent.workshop import Workshop
from devices.fleet.link import HubLink, TlsFiles
from devices.locks import folder_lock
from devices.runtimes.command import COMMANDS
from devices.user_folders import home


def default_folder() -> Path:
    """Return where an agent keeps its files unless it is told: the user's state folder."""
    return home("XDG_STATE_HOME", ".local/state", "--data") / "edge-nas" / "agent"


def run_agent(
    url: str,
    token_file: Path,
    data: Path,
    *,
    config: Path | None = None,
    name: str | None = None,
    tls: TlsFiles | None = None,
) -> bool:
    """Run an agent until SIGTERM or SIGINT.

    Args:
        config: the owner's YAML file.
        name: of the board, over the configuration's.

    Returns:
        Whether it was interrupted from the keyboard.

    Raises:
        InputError: a bad address, token or configuration, or the hub refuses them.
        EnvironmentProblem: another agent uses the folder or has taken the board's place.
    """
    settings = AgentConfig.load(config)
    if name is not None:
        settings = AgentConfig.model_validate({**settings.model_dump(), "name": name})
    COMMANDS.configure({tool.name: tool for tool in settings.commands})
    stop = threading.Event()
    interrupted = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            interrupted.set()
        stop.set()

    with folder_lock(data, "agent"):
        link = HubLink(url, token_file, tls=tls)
        workshop = Workshop(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        try:
            Agent(link, workshop, data).run(stop)
        finally:
            workshop.close()
            link.close()
    logging.getLogger(__name__).info("the agent has stopped")
    return interrupted.is_set()
