"""Results of a study, one JSON line each, appended durably and read back on the next start."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from nas.record.json_lines import append_line, read_lines
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError


class _Keyed(Protocol):
    @property
    def key(self) -> str:
        """What tells this work from all other work of a study."""
        ...


_Work = TypeVar("_Work", bound=_Keyed)


class StudyFolder:
    """The folder of a study: ``study.json`` says what was asked, ``records.jsonl`` what came out.

    Args:
        folder: made if missing.
        settings: everything the records depend on, JSON-ready.

    Raises:
        InputError: the folder holds a study with other settings; the message names them.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "records.jsonl"
        known = self.folder / "study.json"
        # As JSON reads it back: tuples are lists there.
        wanted = json.loads(json.dumps(dict(settings)))
        if known.exists():
            before = json.loads(known.read_text(encoding="utf-8"))
            changed = [
                f"{key} was {before.get(key)!r} and is now {wanted.get(key)!r}"
                for key in sorted({*before, *wanted})
                if before.get(key) != wanted.get(key)
            ]
            if changed:
                raise InputError(
                    f"{folder} holds a study with other settings: {'; '.join(changed)}; "
                    "give the same ones, or another folder with --output"
                )
        else:
            write_json_atomic(known, wanted)
        self._records = self._read()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the record of ``key``, or None where there is none yet."""
        return self._records.get(key)

    def known(self, key: str) -> dict[str, Any]:
        """Return the record of ``key``, which was added before."""
        return self._records[key]

    def add(self, key: str, values: Mapping[str, Any]) -> None:
        """Append the record of ``key``; it is on the disk when this returns."""
        append_line(self.path, {"key": key, **values})
        self._records[key] = dict(values)

    def complete(
        self,
        work: Sequence[_Work],
        compute: Callable[[list[_Work]], Iterable[tuple[_Work, Mapping[str, Any]]]],
        on_record: Callable[[int, int, Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Add the records that are missing, as each is computed.

        Args:
            work: what there is to do, each with the ``key`` of its record.
            compute: yields the record of each of some work, in any order.
            on_record: called with (done, total, record) after each.
        """
        todo = [item for item in work if self.get(item.key) is None]
        for done, (item, record) in enumerate(compute(todo), start=len(work) - len(todo) + 1):
            self.add(item.key, record)
            if on_record is not None:
                on_record(done, len(work), record)

    def __len__(self) -> int:
        return len(self._records)

    def _read(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for values in read_lines(self.path):
            # The first record of a key stands; a second can only come from a rerun.
            found.setdefault(values.pop("key"), values)
        return found
