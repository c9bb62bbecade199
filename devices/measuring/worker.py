"""The measuring process: one JSON request on stdin, one JSON message a line on stdout.

Started by :class:`devices.measuring.child.ChildSampler`; imports NumPy and the one runtime.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from search_spaces.errors import EnvironmentProblem, InputError


def main() -> int:
    """Serve one request and return the exit code."""
    # Native libraries may print; the messages get a descriptor of their own and
    # everything else goes to stderr.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_follow_parent, daemon=True).start()

    from devices.measuring.protocol import Protocol
    from devices.measuring.sampling import run_sequence

    protocol = Protocol.from_json(request["protocol"])
    cores = _pin(request["cores"]) if protocol.pin else ()
    priority = _prioritise(protocol.nice)
    try:
        # The parent has looked it up: a registry would import every runtime, here in each process.
        module, name = request["runtime"]
        runtime = getattr(importlib.import_module(module), name)(**request["parameters"])
        limited = runtime.runs_on_cpu and _limit_memory(protocol.memory_limit_mib)
        emit(
            {
                "event": "ready",
                "cores": list(cores),
                "memory_limited": limited,
                "nice": priority,
            }
        )
        reference = request["reference"]
        run_sequence(
            runtime,
            [Path(model) for model in request["models"]],
            request["sequence"],
            protocol,
            reference=Path(reference) if reference else None,
            emit=emit,
            cores=cores,
        )
    except (EnvironmentProblem, InputError) as error:
        kind = "environment" if isinstance(error, EnvironmentProblem) else "input"
        emit({"event": "refused", "kind": kind, "detail": str(error)})
        return error.exit_code
    emit({"event": "done"})
    return 0


def _follow_parent() -> None:
    # stdin stays open as long as the parent lives; a killed parent must not leave a
    # process behind that disturbs the next measurement. Blocked in a read, the thread
    # costs the measurement nothing.
    while os.read(0, 4096):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)  # started by hand: the group is the shell's


def _pin(cores: list[int]) -> tuple[int, ...]:
    if not cores or not hasattr(os, "sched_setaffinity"):
        return ()
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores)
        return tuple(sorted(os.sched_getaffinity(0)))
    return ()


_FIRST = -15
"""Asked for by default: others' slices cost a measurement its time and its warm caches, and it
costs them one core for seconds. Not -20, which leaves a core's kernel threads no way past it."""


def _prioritise(nice: int | None) -> int:
    if hasattr(os, "setpriority"):
        nice = _FIRST if nice is None else nice
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            # With automatic groups Linux weighs sessions against each other, and a
            # process's own value only within its session, of which this one is the leader.
            # ENOENT: such a kernel was not built; EAGAIN: changed less than 0.1 s ago.
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                Path("/proc/self/autogroup").write_text(str(nice))
    return os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0


def _limit_memory(mib: int | None) -> bool:
    if mib is None:
        return False
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = mib * 2**20
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (OSError, ValueError):  # macOS refuses; recorded as not limited
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
