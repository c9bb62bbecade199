"""What a runtime must do once on a board before it can be offered, beside the agent's work."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

_LOG = logging.getLogger(__name__)


class Preparing:
    """Runs a command in a process of its own while the agent serves other runtimes.

    Args:
        what: it does, for the log: "compiling the low-bit kernels".
        command: program and arguments.
        lock: held meanwhile, so that it disturbs no measurement.
    """

    def __init__(
        self, what: str, command: Sequence[str], lock: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._what, self._command, self._lock = what, list(command), lock
        self._guard = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self.failure: str | None = None
        # A daemon: waiting for the lock must not keep a stopped agent alive.
        self._thread = threading.Thread(target=self._run, name="preparing", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether it has ended, well or badly."""
        return not self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(seconds)

    def stop(self) -> None:
        """Break it off, with the processes that it started."""
        with self._guard:
            self._stopped = True
            if self._process is not None and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _run(self) -> None:
        try:
            with self._lock():
                self._call()
        except Exception as error:  # the agent goes on without the runtime, and says why
            self.failure = f"{self._what} failed: {error}"

    def _call(self) -> None:
        with self._guard:
            if self._stopped:
                return
            _LOG.info("%s; the other runtimes are offered meanwhile", self._what)
            self._process = subprocess.Popen(
                self._command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        _, errors = self._process.communicate()
        if self._process.returncode and not self._stopped:
            self.failure = f"{self._what} failed: {errors.strip()[-2000:]}"
