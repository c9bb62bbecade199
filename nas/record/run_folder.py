"""The run folder: what a run was asked for, what happened, and where everything is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.locks import is_locked
from nas.record.database_url import HIDDEN, password_of, with_password, without_password
from nas.record.json_lines import append_line, read_lines
from nas.record.spending import last_host, tree_cpu_seconds
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.terminal import quoted

if TYPE_CHECKING:
    from nas.job.schema import Job


JOB_FILE = "job.yaml"
"""The whole job of a run, every default written out: ``nas run RUN/job.yaml`` makes it again."""


EARLIER_SCALE = 0.35
"""To which files of pictures were cropped where a job said nothing, until 0.6 took its place."""


class RunStore:
    """A run folder.

    ``manifest.json`` is written first and names the whole job, so a folder either can be
    resumed or is not a run. ``events.jsonl`` grows by one line an event.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest_path = self.folder / "manifest.json"
        self.events_path = self.folder / "events.jsonl"
        self.checkpoint = self.folder / "supernet" / "checkpoint.safetensors"
        self.study = self.folder / "study.db"
        self.secret = self.folder / ".study-password"
        self.measurements = self.folder / "measurements.db"
        self.models = self.folder / "models"
        self.work = self.folder / "work"
        self.tested = self.work / "tested.jsonl"
        self.results = self.folder / "results.json"
        self.lock = self.folder / ".lock"
        self.budget = self.folder / "budget.json"

    @classmethod
    def create(cls, folder: Path, manifest: Mapping[str, Any]) -> RunStore:
        """Begin a run in ``folder``.

        Raises:
            InputError: the folder holds a run already, or files of something else.
            OSError: the folder cannot be written.
        """
        store = cls(folder)
        if store.manifest_path.exists():
            raise InputError(
                f"{folder} holds a run already; go on with it by 'nas resume {quoted(folder)}', "
                "or choose another folder with --output"
            )
        if store.folder.exists() and not store.folder.is_dir():
            raise InputError(f"{folder} is a file; choose a folder with --output")
        store.folder.mkdir(parents=True, exist_ok=True)
        # A manifest that was being written at a crash; any other file is somebody else's.
        torn = set(store.folder.glob(f".{store.manifest_path.name}.*.tmp"))
        torn |= {store.secret} & {*store.folder.iterdir()}
        if {*store.folder.iterdir()} - torn - {store.lock}:
            raise InputError(f"{folder} is not empty; choose another folder with --output")
        for path in torn:
            path.unlink(missing_ok=True)
        manifest = dict(manifest)
        address = (manifest.get("job") or {}).get("study")
        if address is not None and password_of(address) is not None:
            # Others may read a manifest, and it is handed on with a run.
            manifest["job"] = {**manifest["job"], "study": without_password(address)}
            store._keep_secret(password_of(address) or "")
        write_json_atomic(store.manifest_path, manifest)
        if manifest.get("job"):
            # JSON is YAML, so it is a job file.
            write_json_atomic(store.folder / JOB_FILE, manifest["job"])
        return store

    def _keep_secret(self, password: str) -> None:
        self.secret.unlink(missing_ok=True)
        handle = os.open(self.secret, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(password)

    def _with_secret(self, job: Any) -> Any:
        """Return the recorded job with the password of its study, which is kept apart."""
        address = job.get("study") if isinstance(job, dict) else None
        if not isinstance(address, str) or HIDDEN not in address or not self.secret.is_file():
            return job
        return {**job, "study": with_password(address, self.secret.read_text(encoding="utf-8"))}

    @classmethod
    def open(cls, folder: Path) -> RunStore:
        """Return the run in ``folder``.

        Raises:
            InputError: there is none.
        """
        store = cls(folder)
        if not store.manifest_path.is_file():
            raise InputError(f"{folder} is no run folder: it has no manifest.json")
        return store

    def manifest(self) -> dict[str, Any]:
        """Return the manifest.

        Raises:
            InputError: it is not readable JSON.
        """
        try:
            return json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise InputError(f"{self.manifest_path} is damaged: {error}") from error

    def job(self) -> Job:
        """Return the job that the run began with.

        Pictures are varied, and groups divided, as they were when it began, which earlier versions
        did otherwise.

        Raises:
            InputError: the manifest holds none that this version understands.
        """
        from pydantic import ValidationError

        from nas.job.schema import Job

        manifest = self.manifest()
        try:
            job = Job.model_validate(self._with_secret(manifest.get("job")))
        except ValidationError as error:
            found = error.errors()[0]
            where = ".".join(map(str, ("job", *found["loc"])))
            made_by = self.manifest().get("versions", {}).get("edge-nas", "unknown")
            raise InputError(
                f"{self.manifest_path}: {where}: {found['msg']}; restore what was edited there, "
                f"or use the version of edge-nas that began the run ({made_by})"
            ) from error
        if "stratify" not in manifest["job"].get("data", {}):
            data = job.data.model_copy(update={"stratify": False})
            job = job.model_copy(update={"data": data})
        begun = manifest.get("data", {}).get("augmentation", {})
        if begun.get("scale") != EARLIER_SCALE:
            return job
        augment = job.data.augment
        known = {key: value for key, value in begun.items() if getattr(augment, key) is None}
        data = job.data.model_copy(update={"augment": augment.model_copy(update=known)})
        return job.model_copy(update={"data": data})

    def update_manifest(self, **entries: Any) -> None:
        """Set entries of the manifest, atomically."""
        write_json_atomic(self.manifest_path, {**self.manifest(), **entries})

    def first(self, name: str, value: Any) -> Any:
        """Return an entry of the manifest, which is ``value`` from now on if there was none."""
        manifest = self.manifest()
        if name not in manifest:
            self.update_manifest(**{name: value})
        return manifest.get(name, value)

    def record_sections(self, job: Job, *names: str) -> None:
        """Record sections of ``job`` that were decided when it began, for who makes it again, too.

        No others, for the recorded job holds no passwords.
        """
        resolved = job.resolved()
        recorded = {**self.manifest()["job"], **{name: resolved[name] for name in names}}
        self.update_manifest(job=recorded)
        write_json_atomic(self.folder / JOB_FILE, recorded)

    def _weights_digest(self) -> str:
        # Of the contents, where they are recorded: the order of a header's entries is by chance.
        from safetensors import safe_open

        with safe_open(self.checkpoint, framework="np") as file:
            recorded = (file.metadata() or {}).get("sha256")
        return str(recorded or hashlib.sha256(self.checkpoint.read_bytes()).hexdigest())

    def evaluation_context(self, job: Job) -> str:
        """Return a name for what an accuracy of this run depends on besides the architecture.

        Two runs of one name have the same supernet, the same images and the same number of
        them, so one's evaluations hold for the other.
        """
        known = {
            "supernet": self._weights_digest(),
            "data": self.manifest()["data"],
            "images": job.search.validation_images,
            "task": job.task,
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def event(self, kind: str, **values: Any) -> None:
        """Append one line to ``events.jsonl``, durably."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        append_line(self.events_path, {"time": now, "event": kind, **values})

    def events(self) -> list[dict[str, Any]]:
        """Return every whole event; a line torn by a crash is left out."""
        return list(read_lines(self.events_path))

    def infeasible(self) -> dict[str, Any] | None:
        """Return the event with which the run ended without a front; None if it did not."""
        for event in reversed(self.events()):
            if event["event"] == "infeasible":
                return event
            if event["event"] in ("finished", "resumed", "stage_begin"):
                break
        return None

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Record how long ``stage`` took; a stage cut off by a crash records nothing."""
        self.event("stage_begin", stage=stage)
        begin, begin_cpu = time.monotonic(), tree_cpu_seconds()
        yield
        self.event(
            "stage_end",
            stage=stage,
            seconds=round(time.monotonic() - begin, 3),
            cpu_seconds=round(max(0.0, tree_cpu_seconds() - begin_cpu), 3),
        )

    def timing(self) -> list[dict[str, Any]]:
        """Return ``seconds`` and ``cpu_seconds`` of each finished stage, over resumed runs.

        Processor seconds are None for a run that did not record those of all its parts.
        """
        seconds: dict[str, float] = {}
        cpu: dict[str, float | None] = {}
        for event in self.events():
            if event["event"] == "stage_end":
                stage, used = event["stage"], event.get("cpu_seconds")
                before = cpu.get(stage, 0.0)
                seconds[stage] = seconds.get(stage, 0.0) + event["seconds"]
                cpu[stage] = None if used is None or before is None else round(before + used, 3)
        return [
            {"stage": stage, "seconds": round(total, 3), "cpu_seconds": cpu[stage]}
            for stage, total in seconds.items()
        ]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            EnvironmentProblem: another process works on it.
        """
        import filelock

        # Not at once: who looks whether it is held (is_held) holds it for an instant, too.
        lock = filelock.FileLock(self.lock, timeout=0.2)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise EnvironmentProblem(
                f"another process is working on {self.folder}; wait for it or stop it"
            ) from None
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def is_held(self) -> bool | None:
        """Return whether a process works on the run; None where its lock does not tell.

        A killed process lets go of it. Locks do not reach other machines for certain.
        """
        if last_host(self.folder) not in (None, platform.node()):
            return None
        return is_locked(self.lock)

    def _sweep(self) -> None:
        # What a process left that was killed while it wrote a file.
        for path in self.folder.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
