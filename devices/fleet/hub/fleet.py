"""The boards a hub knows: sessions, heartbeats, failures, quarantine."""

from __future__ import annotations

from pydantic import ValidationError

from devices.fleet.hub import refusals
from devices.fleet.hub.clock import Clock
from devices.fleet.hub.ledger import Transaction
from devices.fleet.messages import EXPIRY_S, Description, DeviceState, DeviceView, stored_json
from devices.measuring.store import canonical_json, fingerprint_id

_UNKNOWN = Description(fingerprint={}, runtimes=[])


def _described(text: str) -> Description | None:
    """Return a kept description; None where it cannot be read, which must not hide the others."""
    try:
        return Description.model_validate(stored_json(text))
    except (ValidationError, ValueError):
        return None


QUARANTINE_AFTER = 5
"""Infrastructure failures in a row after which a board gets no more work."""


class Fleet:
    """Registers boards and keeps their state.

    A board has one session at a time, numbered: registering again supersedes the last.

    Args:
        clock: the monotonic one decides who is offline.
        expiry_s: silence after which a board is offline.
        quarantine_after: failures in a row.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        expiry_s: float = EXPIRY_S,
        quarantine_after: int = QUARANTINE_AFTER,
    ) -> None:
        self._clock = clock
        self._expiry_s, self._quarantine_after = expiry_s, quarantine_after
        self._seen: dict[str, float] = {}
        self._written: dict[str, float] = {}

    def register(self, transaction: Transaction, device: str, description: Description) -> int:
        """Begin a new session of a board and return its number."""
        row = transaction.db.execute(
            "SELECT session FROM devices WHERE name = ?", (device,)
        ).fetchone()
        session = 1 if row is None else row[0] + 1
        text = canonical_json(description.model_dump(mode="json"))
        transaction.db.execute(
            "INSERT INTO devices (name, session, last_heartbeat, description) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET session = excluded.session, "
            "last_heartbeat = excluded.last_heartbeat, description = excluded.description",
            (device, session, self._clock.wall(), text),
        )
        transaction.event(self._clock.wall(), "registered", device=device, session=session)
        transaction.after(lambda: self._note(device))
        return session

    def require_session(self, transaction: Transaction, device: str, session: int) -> None:
        """Check a board's session and note that it was heard.

        Raises:
            Refusal: 409, the session was superseded or the board never registered.
        """
        row = transaction.db.execute(
            "SELECT session FROM devices WHERE name = ?", (device,)
        ).fetchone()
        if row is None or session > row[0]:
            raise refusals.not_registered()
        if session < row[0]:
            raise refusals.superseded()
        # For people only, so a flush of the disk for each heartbeat would be waste.
        if self._clock.monotonic() - self._written.get(device, float("-inf")) >= self._expiry_s:
            transaction.db.execute(
                "UPDATE devices SET last_heartbeat = ? WHERE name = ?", (self._clock.wall(), device)
            )
            self._written[device] = self._clock.monotonic()
        transaction.after(lambda: self._note(device))

    def describe(self, transaction: Transaction, device: str) -> Description:
        """Return what a board last said about itself.

        Raises:
            Refusal: 404, the hub does not know it.
        """
        row = transaction.db.execute(
            "SELECT description FROM devices WHERE name = ?", (device,)
        ).fetchone()
        if row is None:
            raise refusals.unknown(f"no device called {device} has registered with this hub")
        return _described(row[0]) or _UNKNOWN

    def quarantine(self, transaction: Transaction, device: str) -> str | None:
        """Return why a board gets no work, or None."""
        row = transaction.db.execute(
            "SELECT quarantine FROM devices WHERE name = ?", (device,)
        ).fetchone()
        return None if row is None else row[0]

    def failed(self, transaction: Transaction, device: str, why: str) -> None:
        """Count an infrastructure failure; the last one too many ends in quarantine."""
        transaction.db.execute(
            "UPDATE devices SET failures = failures + 1 WHERE name = ?", (device,)
        )
        row = transaction.db.execute(
            "SELECT failures, quarantine FROM devices WHERE name = ?", (device,)
        ).fetchone()
        if row is None or row[1] is not None or row[0] < self._quarantine_after:
            return
        reason = f"{row[0]} failures in a row, the last: {why}"[:1000]
        transaction.db.execute("UPDATE devices SET quarantine = ? WHERE name = ?", (reason, device))
        transaction.event(self._clock.wall(), "quarantined", device=device, reason=reason)

    def succeeded(self, transaction: Transaction, device: str) -> None:
        """A board delivered: its failures are forgotten."""
        transaction.db.execute(
            "UPDATE devices SET failures = 0 WHERE name = ? AND failures > 0", (device,)
        )

    def release(self, transaction: Transaction, device: str) -> None:
        """End a quarantine.

        Raises:
            Refusal: 404, the hub does not know the board.
        """
        done = transaction.db.execute(
            "UPDATE devices SET failures = 0, quarantine = NULL WHERE name = ?", (device,)
        ).rowcount
        if not done:
            raise refusals.unknown(f"no device called {device} has registered with this hub")
        transaction.event(self._clock.wall(), "released", device=device)

    def view(self, transaction: Transaction) -> list[DeviceView]:
        """Return the whole fleet, by name."""
        counts: dict[str, dict[str, int]] = {}
        for device, state, count in transaction.db.execute(
            "SELECT device, state, count(*) FROM jobs GROUP BY device, state"
        ):
            counts.setdefault(device, {})[state] = count
        rows = transaction.db.execute(
            "SELECT name, last_heartbeat, description, failures, quarantine FROM devices "
            "ORDER BY name"
        ).fetchall()
        return [self._view(row, counts.get(row[0], {})) for row in rows]

    def _view(
        self, row: tuple[str, float | None, str, int, str | None], counts: dict[str, int]
    ) -> DeviceView:
        name, written, description, failures, quarantine = row
        age = self._age(name)
        busy = counts.get("leased", 0) + counts.get("running", 0)
        offline = age is None or age > self._expiry_s
        state: DeviceState = (
            "quarantined" if quarantine else "offline" if offline else "busy" if busy else "idle"
        )
        about = _described(description)
        if quarantine:
            health = quarantine
        elif about is None:
            health = "what the hub keeps of it is damaged; restart its agent, which tells it anew"
        elif offline:
            health = "no heartbeat"
        else:
            health = f"{failures} failures since the last success" if failures else "ok"
        about = about or _UNKNOWN
        return DeviceView(
            name=name,
            state=state,
            last_heartbeat=written if age is None else self._clock.wall() - age,
            heartbeat_age_s=age,
            queued=counts.get("queued", 0),
            running=busy,
            done=counts.get("done", 0),
            failures=failures,
            health=health,
            description=about,
            fingerprint_id=fingerprint_id(about.fingerprint),
        )

    def _age(self, device: str) -> float | None:
        seen = self._seen.get(device)
        return None if seen is None else self._clock.monotonic() - seen

    def _note(self, device: str) -> None:
        self._seen[device] = self._clock.monotonic()
