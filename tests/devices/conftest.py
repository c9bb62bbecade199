"""Tiny ONNX models and a played machine: clocks, sysfs and latencies without hardware."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from devices.measuring.played import PlayedMachine, PlayedRuntime, PlayedSampler
from devices.testing.models import conv_model, quantised_model


@pytest.fixture
def make_quantised(tmp_path: Path) -> Callable[..., Path]:
    """Write a quantised model called ``name``; keywords as ``quantised_model``."""
    pytest.importorskip("onnx")
    return lambda name="int8.onnx", **options: quantised_model(tmp_path / name, **options)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a model called ``name``; keywords as ``conv_model``."""
    pytest.importorskip("onnx")
    return lambda name="net.onnx", **options: conv_model(tmp_path / name, **options)


@dataclass
class Played:
    """A played machine with its runtime, its sampler and a maker of model files."""

    machine: PlayedMachine
    runtime: PlayedRuntime
    sampler: PlayedSampler
    folder: Path

    def model(self, name: str, text: str = "1.0") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@pytest.fixture(scope="session")
def play_in() -> Callable[..., Played]:
    """Make a played machine with models in a folder; keywords as ``PlayedMachine``, ``seed``."""

    def make(folder: Path, *, seed: int = 0, **options: object) -> Played:
        machine = PlayedMachine(np.random.default_rng(seed), **options)
        return Played(machine, PlayedRuntime(machine), PlayedSampler(machine), folder)

    return make


@pytest.fixture
def play(tmp_path: Path, play_in: Callable[..., Played]) -> Callable[..., Played]:
    """``play_in`` of the test's own folder."""
    return partial(play_in, tmp_path)


@pytest.fixture
def fleet(tmp_path, make_model):
    """A hub, its network and boards in this process; see :class:`Fleet`."""
    pytest.importorskip("fastapi")
    made = Fleet(tmp_path, make_model)
    yield made
    made.close()


class Fleet:
    """A hub on a manual clock, with agents and clients that reach it without sockets."""

    admin_token = "the-admin-token-of-the-tests"

    def __init__(self, folder: Path, make_model: Callable[..., Path]) -> None:
        from devices.testing import HubNetwork, ManualClock

        self.folder, self._make_model = folder, make_model
        self.time = ManualClock()
        self.hub_options: dict = {}
        self.hubs: list = []
        self.network = HubNetwork(self._make_app)
        self.token_files: dict[str, Path] = {}
        self.token_file("admin", self.admin_token)

    def _make_app(self):
        from devices.fleet.hub.app import make_app
        from devices.fleet.hub.hub import Hub

        hub = Hub(
            self.folder / "hub", self.admin_token, clock=self.time.clock(), **self.hub_options
        )
        self.hubs.append(hub)
        return make_app(hub)

    @property
    def hub(self):
        return self.hubs[-1]

    def close(self) -> None:
        self.network.close()
        for hub in self.hubs:
            hub.close()

    def token_file(self, name: str, token: str) -> Path:
        path = self.folder / f"{name}.token"
        path.write_text(token + "\n")
        self.token_files[name] = path
        return path

    def token(self, name: str, scope: str, device: str | None = None, **options: float) -> Path:
        """Make a token and its file."""
        from devices.fleet.messages import TokenRequest

        request = TokenRequest(name=name, scope=scope, device=device, **options)
        issued = self.hub.ledger.call(lambda t: self.hub.tokens.add(t, request))
        return self.token_file(name, issued.token)

    def link(self, token: str = "admin", faults=None):
        from devices.fleet.link import HubLink

        transport = self.network.transport(faults)
        return HubLink("http://127.0.0.1:1", self.token_files[token], transport=transport)

    def agent(self, name: str = "board", *, faults=None, sampler=None, config=None, **options):
        """Make an agent with a folder of its own; the same name again is its restart."""
        from devices.fleet.agent.agent import Agent
        from devices.fleet.agent.config import AgentConfig
        from devices.fleet.agent.workshop import Workshop
        from devices.testing import InstantSampler

        if name not in self.token_files:
            self.token(name, "measure", name)
        config = config or AgentConfig(name=name, runtimes={"onnxruntime": {}})
        workshop = Workshop(
            config, sampler=sampler or InstantSampler(), lock=contextlib.nullcontext
        )
        link = self.link(name, faults)
        return Agent(link, workshop, self.folder / "boards" / name, wait_s=0.0, **options)

    def device(self, board: str = "board", *, name: str | None = None, faults=None, **options):
        """Make a client's view of a board."""
        from devices.device import BoardAddress, DeviceSpec
        from devices.fleet.remote import RemoteDevice

        address = BoardAddress("http://127.0.0.1:1", self.token_files["admin"], board)
        spec = DeviceSpec(name or board, address=address)
        options = {
            "wait_s": 0.0,
            "sleep": self.time.advance,
            "clock": lambda: self.time.now,
        } | options
        return RemoteDevice(spec, link=self.link("admin", faults), **options)

    def models(self, count: int) -> list[Path]:
        return [self._make_model(f"m{i}.onnx", seed=i) for i in range(count)]

    def rows(self, query: str, *values: object) -> list[tuple]:
        """Read the hub's database."""
        return self.hub.ledger.call(lambda t: t.db.execute(query, values).fetchall())
