"""The timed loop inside a measuring process: warm-up, batching, samples.

Clocks and the reader of the machine's state are injected, so that tests can play a slow,
throttling or busy device.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from devices.measuring.conditions import Reader, read_conditions, read_system_file
from devices.measuring.energy import EnergyMeter, NoMeter, make_meter
from devices.measuring.protocol import Protocol
from devices.runtime import Runtime, random_inputs
from search_spaces.errors import EnvironmentProblem, NasError
from search_spaces.seeds import derive_rng, derive_seed

Emit = Callable[[dict[str, Any]], None]

#: Index of the reference model in a sequence of models.
REFERENCE = -1


@dataclass(frozen=True)
class Clocks:
    """Wall and processor time, both monotonic and in ns; and a pause in seconds."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    processor_ns: Callable[[], int] = time.process_time_ns
    sleep: Callable[[float], object] = time.sleep


LONGEST_PAUSE_S = 0.4
"""A process waits for a random part of this before it begins: a disturbance that comes back as
often as processes are started would else meet each of them at the same place, or none."""


@dataclass(frozen=True)
class Block:
    """The samples of one model in one process.

    Attributes:
        samples_ns: duration of each sample, which is ``calls`` inferences.
        settled: whether the warm-up windows came to agree.
        finite: whether every output of the first inference was finite.
        processor_share: processor time over wall time of the samples.
        before, after: the machine's state around the samples.
        cores: where the process was kept; empty when it was not.
        memory_limited: whether the limit on its memory could be set.
        nice: the scheduling priority of the process.
        reference_ms: latency of the reference model before and after, if it was measured.
        energy_mj: of one inference, where the machine exposes it.
        arithmetic: products by their arithmetic, see :meth:`devices.runtime.Session.arithmetic`.
        doubts: what makes the outputs doubtful.
    """

    calls: int
    samples_ns: tuple[int, ...]
    settled: bool
    finite: bool
    processor_share: float
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    memory_limited: bool = False
    nice: int = 0
    reference_ms: tuple[float, float] | None = None
    energy_mj: float | None = None
    arithmetic: Mapping[str, int] | None = None
    doubts: tuple[str, ...] = ()

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """Latency of one inference in each sample, ms."""
        return tuple(duration / self.calls * 1e-6 for duration in self.samples_ns)


@dataclass(frozen=True)
class Failure:
    """Why a process has no samples of a model; ``kind`` is the value of a reason."""

    kind: str
    detail: str


def run_sequence(
    runtime: Runtime,
    models: Sequence[Path],
    sequence: Sequence[int],
    protocol: Protocol,
    *,
    reference: Path | None = None,
    emit: Emit,
    clocks: Clocks | None = None,
    reader: Reader = read_system_file,
    cores: Sequence[int] = (),
) -> None:
    """Measure models one after another and report each as it is done.

    Args:
        sequence: indices into ``models``, or ``REFERENCE``.
        cores: where this process is kept.
        emit: takes ``{"event": "start" | "block" | "failure", "index": ..., ...}``.

    Raises:
        EnvironmentProblem: the machine lacks something, so no model can be measured.
    """
    clocks = clocks or Clocks()
    rng = derive_rng(protocol.seed, "pause", clocks.wall_ns())
    clocks.sleep(float(rng.uniform(0, LONGEST_PAUSE_S)))
    for index in sequence:
        emit({"event": "start", "index": index})
        path = reference if index == REFERENCE else models[index]
        assert path is not None
        try:
            block = _measure_one(runtime, path, protocol, clocks, reader, cores)
        except EnvironmentProblem:
            raise
        except MemoryError as error:
            emit(_failure(index, "memory-limit", error))
        except (NasError, RuntimeError, ValueError, TypeError, OSError) as error:
            # What a runtime raises on a model it cannot run; the other models go on.
            kind = "memory-limit" if _is_allocation(error) else "model-failed"
            emit(_failure(index, kind, error))
        else:
            emit({"event": "block", "index": index, "block": _as_json(block)})


def time_calls(
    call: Callable[[], object],
    protocol: Protocol,
    *,
    clocks: Clocks,
    conditions: Callable[[], Mapping[str, Any]] = dict,
    meter: EnergyMeter | None = None,
) -> Block:
    """Warm a call up and take its samples; ``finite`` is left to the caller.

    Args:
        call: one inference.
        conditions: reads the machine's state, outside the timed part.
        meter: of the energy of the samples.
    """
    meter = meter or NoMeter()
    with _no_collection():
        latency_ns, settled = _warm_up(call, protocol, clocks)
        wanted_ns = protocol.min_sample_ms * 1e6
        calls = max(1, math.ceil(wanted_ns / max(latency_ns, 1.0)))
        before = conditions()
        while True:
            meter.start()
            wall, processor = clocks.wall_ns(), clocks.processor_ns()
            samples = _sample(call, calls, protocol.runs, clocks.wall_ns)
            wall, processor = clocks.wall_ns() - wall, clocks.processor_ns() - processor
            energy = meter.stop()
            median = float(np.median(samples))
            if median >= wanted_ns:
                break
            # The warm-up was slower than the samples: they are all taken again, longer.
            calls = max(calls + 1, math.ceil(calls * 1.05 * wanted_ns / max(median, 1.0)))
        return Block(
            calls=calls,
            samples_ns=tuple(samples),
            settled=settled,
            finite=True,
            processor_share=processor / wall if wall else 1.0,
            before=before,
            after=conditions(),
            energy_mj=None if energy is None else energy / (calls * protocol.runs),
        )


def block_from_json(value: Mapping[str, Any]) -> Block:
    """Read a block from the message of a worker."""
    return Block(
        calls=int(value["calls"]),
        samples_ns=tuple(int(n) for n in value["samples_ns"]),
        settled=bool(value["settled"]),
        finite=bool(value["finite"]),
        processor_share=float(value["processor_share"]),
        before=value["before"],
        after=value["after"],
        energy_mj=value.get("energy_mj"),
        arithmetic=value.get("arithmetic"),
        doubts=tuple(value.get("doubts", ())),
    )


def _measure_one(
    runtime: Runtime,
    path: Path,
    protocol: Protocol,
    clocks: Clocks,
    reader: Reader,
    cores: Sequence[int],
) -> Block:
    session = runtime.load(path)
    inputs = random_inputs(session.inputs, derive_seed(protocol.seed, "inputs"))
    outputs = session(*inputs)
    finite = all(bool(np.isfinite(o).all()) for o in outputs if o.dtype.kind == "f")
    arithmetic = session.arithmetic()
    doubts = [*session.doubts(*inputs), *_fall_back(path, arithmetic)]
    block = time_calls(
        session.bind(*inputs),
        protocol,
        clocks=clocks,
        conditions=lambda: read_conditions(cores, reader=reader),
        meter=make_meter(protocol.energy_source, reader=reader),
    )
    return replace(block, finite=finite, arithmetic=arithmetic, doubts=tuple(doubts))


def _fall_back(path: Path, arithmetic: Mapping[str, int] | None) -> list[str]:
    """Say when products of a quantised ONNX file run in floats, which no runtime mentions."""
    floats = {k: n for k, n in (arithmetic or {}).items() if "float" in k and n}
    if not floats or path.suffix != ".onnx" or b"QuantizeLinear" not in path.read_bytes():
        return []
    total = sum((arithmetic or {}).values())
    return [
        f"{count} of {total} products run in {kind} although the file is quantised"
        for kind, count in floats.items()
    ]


def _warm_up(call: Callable[[], object], protocol: Protocol, clocks: Clocks) -> tuple[float, bool]:
    """Call until the medians of successive windows agree.

    Returns:
        The fastest of these medians, ns, and whether they agreed.
    """
    start = clocks.wall_ns()
    windows: list[float] = []
    while True:
        opened = before = clocks.wall_ns()
        durations = []
        while before - opened < protocol.warmup_window_ms * 1e6:
            call()
            after = clocks.wall_ns()
            durations.append(after - before)
            before = after
        # The median: one preemption within a window says nothing about being warm.
        windows.append(float(np.median(durations)))
        recent = windows[-protocol.warmup_windows :]
        fastest = min(recent)
        if len(recent) == protocol.warmup_windows:
            if max(recent) <= fastest * (1 + protocol.warmup_tolerance):
                return fastest, True
            if before - start >= protocol.warmup_max_s * 1e9:
                return fastest, False


def _sample(
    call: Callable[[], object], calls: int, runs: int, clock: Callable[[], int]
) -> list[int]:
    repeat = range(calls)
    samples = [0] * runs
    for run in range(runs):
        start = clock()
        for _ in repeat:
            call()
        samples[run] = clock() - start
    return samples


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _as_json(block: Block) -> dict[str, Any]:
    return {
        "calls": block.calls,
        "samples_ns": list(block.samples_ns),
        "settled": block.settled,
        "finite": block.finite,
        "processor_share": block.processor_share,
        "before": dict(block.before),
        "after": dict(block.after),
        "energy_mj": block.energy_mj,
        "arithmetic": block.arithmetic,
        "doubts": list(block.doubts),
    }


def _failure(index: int, kind: str, error: Exception) -> dict[str, Any]:
    detail = f"{type(error).__name__}: {error}"[:2000]
    return {"event": "failure", "index": index, "kind": kind, "detail": detail}


def _is_allocation(error: Exception) -> bool:
    text = str(error).lower()
    return any(sign in text for sign in ("bad_alloc", "bad allocation", "failed to allocate"))
