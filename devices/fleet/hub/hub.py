"""The parts of a hub on one data folder: what every request works with."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devices.fleet.hub.bells import Bells
from devices.fleet.hub.clock import Clock
from devices.fleet.hub.fleet import Fleet
from devices.fleet.hub.guard import GuardLimits
from devices.fleet.hub.leases import Leases
from devices.fleet.hub.ledger import Ledger
from devices.fleet.hub.refusals import Refusal
from devices.fleet.hub.tokens import Tokens
from devices.fleet.messages import EXPIRY_S, HEARTBEAT_S
from devices.sqlite_file import Connect
from devices.untrusted.blobs import BlobStore
from devices.untrusted.model_check import ModelLimits, check_model
from search_spaces.errors import EnvironmentProblem

_LOG = logging.getLogger(__name__)
_FRESH_S = 3600.0
"""How long a model that no job uses yet is safe from pruning."""
_RESERVE_BYTES = 64 << 20
"""Free space the hub leaves on its disk, so that results can always be kept."""


@dataclass(frozen=True)
class HubLimits:
    """What the hub takes.

    Attributes:
        guard: sizes and rates of requests.
        model: what a model may ask for.
        total_model_bytes: of all models kept.
        unused_bytes: of models that one client has uploaded and submitted no job for.
        expiry_s: silence after which a lease is over.
        heartbeat_s: how often agents report.
    """

    guard: GuardLimits = field(default_factory=GuardLimits)
    model: ModelLimits = field(default_factory=ModelLimits)
    total_model_bytes: int = 16 << 30
    unused_bytes: int = 4 << 30
    expiry_s: float = EXPIRY_S
    heartbeat_s: float = HEARTBEAT_S


class Hub:
    """Tokens, boards, jobs and models; :func:`devices.fleet.hub.app.make_app` serves them.

    Args:
        folder: database and models.
        admin_token: the token of the token file.
        limits: see :class:`HubLimits`.
        clock: monotonic and wall time.
        sqlite_connect, open_file: the file layer, where faults can be played.
    """

    def __init__(
        self,
        folder: Path,
        admin_token: str,
        *,
        limits: HubLimits | None = None,
        clock: Clock | None = None,
        sqlite_connect: Connect | None = None,
        open_file: Callable[[int], Any] | None = None,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self.limits, self.clock = limits or HubLimits(), clock or Clock()
        self.folder = Path(folder)
        self._free_bytes = free_bytes
        options: dict[str, Any] = {} if sqlite_connect is None else {"connect": sqlite_connect}
        self.ledger = Ledger(self.folder / "hub.db", **options)
        files: dict[str, Any] = {} if open_file is None else {"open_file": open_file}
        self.blobs = BlobStore(
            self.folder / "models",
            max_bytes=self.limits.model.bytes,
            max_total_bytes=self.limits.total_model_bytes,
            check=lambda path: check_model(path, self.limits.model),
            **files,
        )
        self.tokens = Tokens(self.ledger, admin_token, wall=self.clock.wall)
        self.fleet = Fleet(clock=self.clock, expiry_s=self.limits.expiry_s)
        self.leases = Leases(
            self.ledger,
            self.fleet,
            clock=self.clock,
            has_model=self.blobs.__contains__,
            expiry_s=self.limits.expiry_s,
        )
        self.bells = Bells()
        # Client -> model -> bytes, of what it uploaded and no job has used since.
        self._uploads: dict[str, dict[str, int]] = {}
        # A client's uploads are counted in threads, several at a time.
        self._counting = threading.Lock()

    async def expire(self) -> None:
        """Take back leases whose time is over and wake whoever waits for their jobs."""
        if self.leases.due:
            for job in await self.ledger.run(self.leases.expire):
                self.bells.ring(f"job:{job}")
            self.bells.ring_all("device:")

    def require_space(self, size: int) -> None:
        """Check that a model of ``size`` bytes leaves room for results.

        Raises:
            EnvironmentProblem: it does not.
        """
        if self._free_bytes(self.folder) - size < _RESERVE_BYTES:
            raise EnvironmentProblem("no space left for a model file")

    def require_quota(self, client: str, size: int, used: set[str]) -> None:
        """Check that a client may leave ``size`` more bytes of models that no open job uses.

        Raises:
            Refusal: 413, jobs for those it has uploaded come first.
        """
        with self._counting:
            kept = dict(self._uploads.get(client, {}))
        gone = [name for name in kept if name in used or name not in self.blobs]
        with self._counting:
            left = self._uploads.setdefault(client, {})
            for sha256 in gone:
                left.pop(sha256, None)
            idle = sum(left.values())
        if idle + size > self.limits.unused_bytes:
            raise Refusal(
                413,
                "quota",
                f"{idle >> 20} MiB of models wait for jobs already (at most "
                f"{self.limits.unused_bytes >> 20}); submit those first, in smaller groups",
            )

    def uploaded(self, client: str, sha256: str, path: Path) -> None:
        """Note who brought a model; see :meth:`require_quota`."""
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            with self._counting:
                self._uploads.setdefault(client, {})[sha256] = size

    def prune(self, used: set[str]) -> None:
        """Remove models beyond the total that no open job uses and that are not new."""

        def in_use(sha256: str) -> bool:
            with contextlib.suppress(FileNotFoundError):
                age = time.time() - self.blobs.path(sha256).stat().st_mtime
                return sha256 in used or age < _FRESH_S
            return False

        for removed in self.blobs.prune(in_use):
            _LOG.info("removed model %s, the least recently used", removed)

    def close(self) -> None:
        """Finish what is under way and close the database."""
        self.ledger.close()
