"""The parent's side of a measuring process: start, follow, limit, kill."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar

from devices.measuring.protocol import Protocol
from devices.measuring.quiet import steady_median
from devices.measuring.sampling import REFERENCE, Block, Failure, block_from_json
from devices.runtime import Runtime
from search_spaces.errors import EnvironmentProblem, InputError

_START = "import json, sys; sys.path = json.loads(sys.argv[1]) or sys.path; "
_START += "import devices.measuring.worker as w; sys.exit(w.main())"
_END = None


class Sampler(ABC):
    """Where samples come from: a process of its own, or a played device in tests.

    Attributes:
        probes: whether a probe runs between samples of a runtime on the processor.
    """

    probes: ClassVar[bool] = True

    @abstractmethod
    def sample(
        self,
        runtime: Runtime,
        models: Sequence[Path],
        sequence: Sequence[int],
        protocol: Protocol,
        *,
        reference: Path | None,
        cores: Sequence[int],
    ) -> dict[int, Block | Failure]:
        """Measure ``models`` in the order of ``sequence``, in one fresh process.

        ``sequence`` holds each index of ``models`` once, and ``REFERENCE`` any number of
        times; the blocks carry the reference's latency before and after them.

        Returns:
            Index of a model -> its samples, or why there are none.

        Raises:
            EnvironmentProblem: nothing can be measured here.
        """


class ChildSampler(Sampler):
    """Measures in a child process with a process group, memory limit and deadline of its own.

    A model that crashes the child or outlasts its deadline costs only itself: the rest
    of the sequence goes on in another child.

    Args:
        python: the interpreter of the child; another one may hold a runtime whose
            packages conflict with the parent's.
        start_s: wall time within which a child must be ready.
    """

    def __init__(self, *, python: str = sys.executable, start_s: float = 120.0) -> None:
        self.python = python
        self.start_s = start_s

    def sample(
        self,
        runtime: Runtime,
        models: Sequence[Path],
        sequence: Sequence[int],
        protocol: Protocol,
        *,
        reference: Path | None,
        cores: Sequence[int],
    ) -> dict[int, Block | Failure]:
        """See :meth:`Sampler.sample`: another process goes on where one died or hung."""
        outcomes: dict[int, Block | Failure] = {}
        rest = list(sequence)
        while rest:
            request = {
                "runtime": [type(runtime).__module__, type(runtime).__qualname__],
                "parameters": runtime.parameters(),
                "protocol": protocol.to_json(),
                "models": [str(model) for model in models],
                "reference": str(reference) if reference else None,
                "sequence": rest,
                "cores": list(cores),
            }
            done, failure = self._run(request, runtime, protocol)
            outcomes |= with_reference(done, own_core=runtime.runs_on_cpu and runtime.threads == 1)
            if failure is None or len(done) == len(rest):
                break
            culprit = rest[len(done)]
            rest = rest[len(done) + 1 :]
            if culprit == REFERENCE:
                rest = [index for index in rest if index != REFERENCE]
            else:
                outcomes[culprit] = failure
        return outcomes

    def _run(
        self, request: dict[str, Any], runtime: Runtime, protocol: Protocol
    ) -> tuple[list[tuple[int, Block | Failure]], Failure | None]:
        """Return what one child finished, and how it failed if it did."""
        done: list[tuple[int, Block | Failure]] = []
        ready: dict[str, Any] | None = None
        with tempfile.TemporaryFile() as errors:
            child = self._start(errors, runtime.threads)
            try:
                messages = _follow(child)
                assert child.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write((json.dumps(request) + "\n").encode())
                    child.stdin.flush()
                while True:
                    limit = protocol.deadline_s if ready else self.start_s
                    try:
                        message = messages.get(timeout=limit)
                    except queue.Empty:
                        if ready is None:
                            raise EnvironmentProblem(
                                f"the measuring process was not ready within {limit:g} s"
                            ) from None
                        return done, Failure("deadline-passed", f"not done within {limit:g} s")
                    if message is _END:
                        await_exit(child)
                        kill_group(child)
                        code, text = child.returncode, _tail(errors)
                        if ready is None:
                            raise EnvironmentProblem(
                                f"the measuring process did not start (exit {code}): {text}"
                            )
                        return done, Failure("process-crashed", f"{_exit(code)}: {text}")
                    event = message["event"]
                    if event == "ready":
                        ready = message
                    elif event == "block":
                        assert ready is not None
                        block = replace(
                            block_from_json(message["block"]),
                            cores=tuple(ready["cores"]),
                            memory_limited=bool(ready["memory_limited"]),
                            nice=int(ready["nice"]),
                        )
                        done.append((message["index"], block))
                    elif event == "failure":
                        failure = Failure(message["kind"], message["detail"])
                        done.append((message["index"], failure))
                    elif event == "refused":
                        kind = InputError if message["kind"] == "input" else EnvironmentProblem
                        raise kind(message["detail"])
                    elif event == "done":
                        return done, None
            finally:
                kill_group(child)
                for pipe in (child.stdin, child.stdout):
                    assert pipe is not None
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _start(self, errors: IO[bytes], threads: int) -> subprocess.Popen[bytes]:
        # The same interpreter finds what this process finds, whatever the working folder;
        # another one has packages of its own.
        same = self.python == sys.executable
        path = [entry or os.getcwd() for entry in sys.path] if same else []
        limits = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        environment = os.environ | dict.fromkeys(limits, str(threads))
        try:
            return subprocess.Popen(
                [self.python, "-c", _START, json.dumps(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentProblem(f"cannot start {self.python}: {error.strerror}") from error


def with_reference(
    done: Sequence[tuple[int, Block | Failure]],
    *,
    own_core: bool = False,
) -> dict[int, Block | Failure]:
    """Give each block the reference's latency before and after it, and drop the reference."""
    looks = [
        (place, outcome)
        for place, (index, outcome) in enumerate(done)
        if index == REFERENCE and isinstance(outcome, Block)
    ]
    outcomes: dict[int, Block | Failure] = {}
    for place, (index, outcome) in enumerate(done):
        if index == REFERENCE:
            continue
        if isinstance(outcome, Block):
            earlier = [look for at, look in looks if at < place]
            later = [look for at, look in looks if at > place]
            if earlier and later:
                pair = (
                    steady_median(earlier[-1], own_core=own_core),
                    steady_median(later[0], own_core=own_core),
                )
                outcome = replace(outcome, reference_ms=pair)
        outcomes[index] = outcome
    return outcomes


def _follow(child: subprocess.Popen[bytes]) -> queue.Queue[Any]:
    """Return a queue of the child's messages; ``_END`` follows the last."""
    messages: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        assert child.stdout is not None
        with contextlib.suppress(ValueError):  # a line cut short by a crash, or a closed pipe
            for line in child.stdout:
                messages.put(json.loads(line))
        messages.put(_END)

    threading.Thread(target=read, daemon=True).start()
    return messages


def await_exit(child: subprocess.Popen[bytes], seconds: float = 5.0) -> bool:
    """Wait for a child to exit without reaping it; return whether it did.

    As long as it is not reaped its group keeps its number, and can be killed safely.
    """
    if not hasattr(os, "waitid"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        return child.returncode is not None
    end = time.monotonic() + seconds
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    while os.waitid(os.P_PID, child.pid, flags) is None:
        if time.monotonic() >= end:
            return False
        time.sleep(0.005)
    return True


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a child with everything in its process group, and reap it."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _exit(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _tail(errors: IO[bytes], size: int = 1000) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - size))
    return errors.read().decode("utf-8", errors="replace").strip() or "no message"
