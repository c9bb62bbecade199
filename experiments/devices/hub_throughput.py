"""How long a board waits for its next measurement when two hundred ask the same hub.

Run: ``python -m experiments.devices.hub_throughput [--agents 200] [--seconds 30]``

A real hub (``nas device serve``: uvicorn, SQLite with full synchronisation) and simulated
agents in another process share the machine. Every agent registers, sends a heartbeat every
5 s, and goes through the whole exchange again and again: lease, start, a pause in place of
the measurement, deliver. A lease call counts as long as it takes to be answered while work
is waiting; what long polls wait for new work is not a delay of the hub.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import platform
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from devices.measuring.fitness import reference_model
from devices.measuring.protocol import Protocol
from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

RESULTS = Path(__file__).parent.parent / "results" / "devices"
TARGET_MS = 100.0
TOKEN = "throughput-admin-token"
PROTOCOL = Protocol(processes=3, runs=30, retries=0).to_json()


class Timings:
    """Latencies of calls in ms, by kind."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}
        self.counting = False

    async def ask(self, kind: str, client: httpx.AsyncClient, path: str, body: Any) -> Any:
        started = time.perf_counter()
        response = await client.post(path, json=body)
        if self.counting:
            self.ms.setdefault(kind, []).append((time.perf_counter() - started) * 1e3)
        response.raise_for_status()
        return response.json()


async def agent(
    client: httpx.AsyncClient,
    name: str,
    timings: Timings,
    pause_s: float,
    seed: int,
    stop: asyncio.Event,
) -> int:
    """Play one board until ``stop`` and return how many results it delivered."""
    rng = random.Random(seed)
    description = {
        "fingerprint": {"cpu": f"simulated {name}"},
        "runtimes": [{"name": "onnxruntime", "version": "1"}],
    }
    answer = await timings.ask(
        "register",
        client,
        "/api/agent/register",
        {"device": name, "description": description},
    )
    session = answer["session"]
    held: list[dict[str, Any]] = []

    async def beat() -> None:
        await asyncio.sleep(rng.uniform(0, 5))
        while not stop.is_set():
            message = {"session": session, "holding": held}
            await timings.ask("heartbeat", client, "/api/agent/heartbeat", message)
            await asyncio.sleep(5)

    heart = asyncio.create_task(beat())
    delivered = 0
    await asyncio.sleep(rng.uniform(0, pause_s))
    while not stop.is_set():
        leased = await timings.ask(
            "lease", client, "/api/agent/lease", {"session": session, "most": 1, "wait_s": 0}
        )
        if not leased["jobs"]:
            raise RuntimeError("the queue ran dry, so the lease calls measured nothing")
        held = [{"job": job["job"], "fence": job["fence"]} for job in leased["jobs"]]
        await timings.ask(
            "start", client, "/api/agent/start", {"session": session, "holding": held}
        )
        await asyncio.sleep(pause_s * rng.uniform(0.5, 1.5))
        for item, job in zip(held, leased["jobs"], strict=True):
            result = {**item, "measurement": _measurement(rng, job["protocol"])}
            await timings.ask("result", client, "/api/agent/result", result)
            delivered += 1
        held = []
    heart.cancel()
    return delivered


def _measurement(rng: random.Random, protocol: dict[str, Any]) -> dict[str, Any]:
    samples = [
        [rng.uniform(0.9, 1.1) for _ in range(protocol["runs"])]
        for _ in range(protocol["processes"])
    ]
    names = ("latency_ms", "low_ms", "high_ms", "iqr_ms", "p90_ms", "p99_ms", "mad_ms")
    return {
        **dict.fromkeys(names, 1.0),
        "samples_ms": samples,
        "calls": [1, 1, 1],
        "valid": True,
        "reasons": [],
        "attempts": 1,
        "rejected": [],
        "runtime": "onnxruntime",
        "runtime_version": "1",
        "parameters": {},
        "protocol": protocol,
        "conditions": {},
        "pinned": False,
    }


async def fill(client: httpx.AsyncClient, sha256: str, agents: int, jobs: int) -> None:
    """Queue ``jobs`` different measurements for each board."""
    for index in range(agents):
        requests = [
            {
                "device": f"board-{index}",
                "model": sha256,
                "runtime": "onnxruntime",
                "protocol": {**PROTOCOL, "seed": seed},
            }
            for seed in range(jobs)
        ]
        (await client.post("/api/jobs", json={"jobs": requests})).raise_for_status()


async def run(url: str, agents: int, seconds: float, warmup_s: float, pause_s: float) -> Any:
    """Fill the queue, let all boards work, and return the timings and deliveries."""
    timings, stop = Timings(), asyncio.Event()
    limits = httpx.Limits(max_connections=2 * agents + 10, max_keepalive_connections=None)
    headers = {"authorization": f"Bearer {TOKEN}"}
    content = reference_model().read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False
    ) as client:
        (await client.put(f"/api/blobs/{sha256}", content=content)).raise_for_status()
        for index in range(agents):
            board = {"fingerprint": {"cpu": f"simulated board-{index}"}}
            board["runtimes"] = [{"name": "onnxruntime", "version": "1"}]
            message = {"device": f"board-{index}", "description": board}
            answer = await client.post(
                "/api/agent/register", json=message, headers={"x-device": f"board-{index}"}
            )
            answer.raise_for_status()
        jobs = int(2 * (seconds + warmup_s) / pause_s) + 10
        await fill(client, sha256, agents, jobs)
        # A client for each board, as in the field; one pool of all their connections would
        # spend more time looking for a free one than the hub spends on the answer.
        boards = [
            httpx.AsyncClient(
                base_url=url,
                headers={**headers, "x-device": f"board-{index}"},
                timeout=60,
                trust_env=False,
                verify=False,
            )
            for index in range(agents)
        ]
        tasks = [
            asyncio.create_task(
                agent(boards[index], f"board-{index}", timings, pause_s, index, stop)
            )
            for index in range(agents)
        ]
        await asyncio.sleep(warmup_s)
        timings.counting = True
        await asyncio.sleep(seconds)
        timings.counting = False
        stop.set()
        delivered = sum(await asyncio.gather(*tasks))
        await asyncio.gather(*(board.aclose() for board in boards))
    return timings, delivered


def main(arguments: list[str] | None = None) -> None:
    """Run the study and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--warmup", type=float, default=8.0, help="s that do not count")
    parser.add_argument("--pause", type=float, default=5.0, help="s of one measurement")
    parser.add_argument("--output", type=Path, default=RESULTS / "hub_throughput.json")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "token").write_text(TOKEN)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-c", "from nas.cli.main import main; main()", "device", "serve"]
        command += ["--port", str(port), "--data", str(folder / "hub")]
        command += ["--token-file", str(folder / "token")]
        hub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert hub.stdout is not None
            url = hub.stdout.readline().split()[-1]
            started = time.perf_counter()
            timings, delivered = asyncio.run(
                run(url, options.agents, options.seconds, options.warmup, options.pause)
            )
            lasted = time.perf_counter() - started
        finally:
            hub.terminate()
            hub.wait()
        with sqlite3.connect(folder / "hub" / "hub.db") as db:
            (kept,) = db.execute("SELECT count(*) FROM jobs WHERE state = 'done'").fetchone()
    calls = {
        kind: {
            "calls": len(ms),
            "median_ms": round(float(np.median(ms)), 2),
            "p90_ms": round(float(np.percentile(ms, 90)), 2),
            "p99_ms": round(float(np.percentile(ms, 99)), 2),
            "max_ms": round(max(ms), 2),
        }
        for kind, ms in sorted(timings.ms.items())
    }
    p99 = calls["lease"]["p99_ms"]
    write_json_atomic(
        options.output,
        {
            "agents": options.agents,
            "seconds": options.seconds,
            "measurement_s": options.pause,
            "calls": calls,
            "delivered": delivered,
            "kept": kept,
            "lasted_s": round(lasted, 1),
            "cores": len(os.sched_getaffinity(0)),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("fastapi", "uvicorn", "httpx")},
        },
    )
    print(f"p99 of a lease call: {p99} ms; {delivered} delivered, {kept} kept")
    if options.output.parent != RESULTS:
        return
    record_claim(
        "device.hub_lease_p99_ms",
        p99,
        TARGET_MS,
        p99 < TARGET_MS and delivered == kept,
        f"experiments/results/devices/{options.output.name}",
        "python -m experiments.devices.hub_throughput",
    )


if __name__ == "__main__":
    main()
