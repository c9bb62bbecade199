"""How long a board waits for its next measurement while the hub is attacked.

Run: ``python -m experiments.devices.hub_hostile [--boards 20] [--connections 1000] [--seconds 25]``

The same hub and boards as in :mod:`experiments.devices.hub_throughput`, first alone and then beside
an attacker in a process of its own, which keeps a thousand connections open (silent ones, a byte of
a head at a time, noise, bodies without a token) and opens each anew that the hub closes. Four
clients with a token upload, one after another, files that are no models: noise, cut and flipped
models, and a list of dimensions whose product has hundreds of thousands of digits. What the boards
wait alone is the comparison: it shows what the machine itself costs. The attacker has a lower
priority: it stands for other machines, which would not take the hub's processor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from devices.measuring.fitness import reference_model
from experiments.devices.hub_throughput import RESULTS, TOKEN, Timings, agent, fill
from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

TARGET_MS = 200.0
UPLOADERS = 4


def malformed(rng: random.Random) -> bytes:
    """Return the bytes of a file that no hub should take."""
    sound = reference_model().read_bytes()
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 600_000))
    if kind == 1:
        return sound[: rng.randrange(1, len(sound))] + b"\xff"
    if kind == 2:
        flipped = bytearray(sound)
        for _ in range(20):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    return endless_product(rng.randrange(20_000, 60_000))


def endless_product(count: int) -> bytes:
    """Return an ONNX file with a tensor of ``count`` dimensions of nine bytes each."""
    import onnx

    model = onnx.load_model_from_string(reference_model().read_bytes())
    tensor = model.graph.initializer.add()
    tensor.name, tensor.data_type = "endless", onnx.TensorProto.FLOAT
    tensor.dims.extend([2**62] * count)
    return bytes(model.SerializeToString())


async def connection(host: str, port: int, seed: int, counts: dict[str, int]) -> None:
    """Hold one hostile connection after another, for ever."""
    rng = random.Random(seed)
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            counts["refused"] = counts.get("refused", 0) + 1
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            continue
        counts["opened"] = counts.get("opened", 0) + 1
        try:
            await _annoy(reader, writer, rng)
        except OSError:
            counts["closed"] = counts.get("closed", 0) + 1
        finally:
            writer.close()
        await asyncio.sleep(rng.uniform(0.1, 1.0))


async def _annoy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
) -> None:
    kind = rng.randrange(4)
    if kind == 0:  # says nothing
        await reader.read()
    elif kind == 1:  # a byte of a head now and then
        for byte in b"POST /api/agent/lease HTTP/1.1\r\nHost: hub\r\nX-Long: " + b"a" * 500:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.3)
    elif kind == 2:  # noise, as a TLS hello or worse
        writer.write(rng.randbytes(2000))
        await writer.drain()
        await reader.read()
    else:  # a body without a token
        writer.write(b"POST / HTTP/1.1\r\nHost: hub\r\nContent-Length: 1000000\r\n\r\n")
        writer.write(b"x" * 60_000)
        await writer.drain()
        await reader.read()


async def upload(url: str, seed: int, counts: dict[str, int]) -> None:
    """Upload one malformed file after another, for ever."""
    rng = random.Random(seed)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60, trust_env=False
    ) as client:
        while True:
            content = malformed(rng)
            path = f"/api/blobs/{hashlib.sha256(content).hexdigest()}"
            answer: int | str
            try:
                answer = (await client.put(path, content=content)).status_code
            except httpx.HTTPError as error:
                answer = type(error).__name__
            counts[f"upload {answer}"] = counts.get(f"upload {answer}", 0) + 1


def attack(url: str, connections: int, results: Any) -> None:
    """Attack a hub for ever and tell every second what came of it."""
    os.nice(10)
    host, port = url.removeprefix("http://").split(":")

    async def everything() -> None:
        counts: dict[str, int] = {}
        # Who uploads is connected before the flood, or would wait behind it.
        tasks = [asyncio.create_task(upload(url, seed, counts)) for seed in range(UPLOADERS)]
        await asyncio.sleep(2)
        tasks += [
            asyncio.create_task(connection(host, int(port), seed, counts))
            for seed in range(connections)
        ]
        while True:
            await asyncio.sleep(1)
            failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
            results.put({**counts, "failed": [repr(error) for error in failed]})

    asyncio.run(everything())


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[str]:
    """Serve a hub of its own process; yield its address."""
    (folder / "token").write_text(TOKEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from nas.cli.main import main; main()", "device", "serve"]
    command += ["--port", str(port), "--data", str(folder / "hub")]
    command += ["--token-file", str(folder / "token")]
    with open(folder / "log", "wb") as log:
        served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert served.stdout is not None
            yield served.stdout.readline().split()[-1]
        finally:
            served.terminate()
            served.wait()
            if served.stdout is not None:
                served.stdout.close()


async def boards(url: str, count: int, seconds: float, pause_s: float, round_: int) -> Timings:
    """Let boards work for ``seconds`` and return how long their calls took."""
    timings, stop = Timings(), asyncio.Event()
    headers = {"authorization": f"Bearer {TOKEN}"}
    content = reference_model().read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    clients = [
        httpx.AsyncClient(
            base_url=url,
            headers={**headers, "x-device": f"board-{i}"},
            timeout=120,
            trust_env=False,
        )
        for i in range(count)
    ]
    admin = clients[0]
    (await admin.put(f"/api/blobs/{sha256}", content=content)).raise_for_status()
    for i, client in enumerate(clients):
        description = {
            "fingerprint": {"cpu": f"simulated board-{i}, round {round_}"},
            "runtimes": [{"name": "onnxruntime", "version": "1"}],
        }
        message = {"device": f"board-{i}", "description": description}
        (await client.post("/api/agent/register", json=message)).raise_for_status()
    await fill(admin, sha256, count, int(3 * seconds / pause_s) + 10)
    working = [
        asyncio.create_task(agent(client, f"board-{i}", timings, pause_s, i, stop))
        for i, client in enumerate(clients)
    ]
    await asyncio.sleep(2 * pause_s)
    timings.counting = True
    await asyncio.sleep(seconds)
    timings.counting = False
    stop.set()
    await asyncio.gather(*working)
    await asyncio.gather(*(client.aclose() for client in clients))
    return timings


def _figures(timings: Timings) -> dict[str, Any]:
    ms = timings.ms["lease"]
    return {
        "calls": len(ms),
        "median_ms": round(float(np.median(ms)), 2),
        "p99_ms": round(float(np.percentile(ms, 99)), 2),
        "max_ms": round(max(ms), 2),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the study and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=20)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=25.0, help="of each of the two phases")
    parser.add_argument("--pause", type=float, default=0.5, help="s of one measurement")
    parser.add_argument("--output", type=Path, default=RESULTS / "hub_hostile.json")
    options = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, hub(Path(name)) as url:
        alone = asyncio.run(boards(url, options.boards, options.seconds, options.pause, 0))
        results = context.Queue()
        attacker = context.Process(target=attack, args=(url, options.connections, results))
        attacker.start()
        try:
            time.sleep(8)  # all connections are open
            beside = asyncio.run(boards(url, options.boards, options.seconds, options.pause, 1))
            counts: dict[str, Any] = {}
            while not results.empty():
                counts = results.get()
        finally:
            attacker.kill()
            attacker.join()
        log_bytes = (Path(name) / "log").stat().st_size
    found = {"alone": _figures(alone), "attacked": _figures(beside)}
    p99 = found["attacked"]["p99_ms"]
    write_json_atomic(
        options.output,
        {
            "boards": options.boards,
            "connections": options.connections,
            "uploaders": UPLOADERS,
            "seconds": options.seconds,
            "lease": found,
            "attack": counts,
            "log_bytes": log_bytes,
            "load_before": round(load, 2),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("fastapi", "uvicorn", "httpx")},
        },
    )
    print(found, counts, f"log {log_bytes} bytes", sep="\n")
    if options.output.parent == RESULTS:
        record_claim(
            "trust.hub_hostile_lease_p99_ms",
            {**{state: figures["p99_ms"] for state, figures in found.items()}, "load": load},
            TARGET_MS,
            p99 < TARGET_MS,
            f"experiments/results/devices/{options.output.name}",
            "python -m experiments.devices.hub_hostile",
        )


if __name__ == "__main__":
    main()
