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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from devices.measuring.conditions import Reader, read_conditions, read_system_file
from devices.measuring.counters import Counters, Counts, NoCounters, make_counters, waited_ns
from devices.measuring.energy import EnergyMeter, NoMeter, make_meter
from devices.measuring.probe import make_probe
from devices.measuring.protocol import Protocol
from devices.measuring.statistics import median_of
from devices.runtime import Runtime, random_inputs
from search_spaces.errors import EnvironmentProblem, NasError
from search_spaces.seeds import derive_rng, derive_seed

Emit = Callable[[dict[str, Any]], None]

#: Index of the reference model in a sequence of models.
REFERENCE = -1


@dataclass(frozen=True)
class Clocks:
    """Wall time, processor time and time spent waiting for a core, monotonic and in ns; and a
    pause in seconds."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    processor_ns: Callable[[], int] = time.process_time_ns
    waited_ns: Callable[[], int] = waited_ns
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
        processor_ns: processor time of each sample; empty where the clock is too coarse.
        waited_ns: how long threads waited for a core in each sample; empty where one thread's
            processor time says it.
        probes_ns: durations of the probe, before, between and after the samples (one more than
            there are samples), when it finds its own data in the caches; empty where none ran,
            see :mod:`devices.measuring.probe`.
        first_probes_ns: of the run before each of these, which finds what the model and others
            left.
        cycles, instructions: of one inference in user mode; None where the kernel gives none.
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
    processor_ns: tuple[int, ...] = ()
    waited_ns: tuple[int, ...] = ()
    probes_ns: tuple[int, ...] = ()
    first_probes_ns: tuple[int, ...] = ()
    cycles: float | None = None
    instructions: float | None = None

    @cached_property
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
    probe: Callable[[], object] | None = None,
) -> None:
    """Measure models one after another and report each as it is done.

    Args:
        sequence: indices into ``models``, or ``REFERENCE``.
        cores: where this process is kept.
        emit: takes ``{"event": "start" | "block" | "failure", "index": ..., ...}``.
        probe: what runs between samples; by default :func:`devices.measuring.probe.make_probe`
            for a runtime on the processor, and nothing for another.

    Raises:
        EnvironmentProblem: the machine lacks something, so no model can be measured.
    """
    clocks = clocks or Clocks()
    if not runtime.runs_on_cpu:
        probe = None
    elif probe is None:
        probe = make_probe()
    counters = make_counters()
    rng = derive_rng(protocol.seed, "pause", clocks.wall_ns())
    clocks.sleep(float(rng.uniform(0, LONGEST_PAUSE_S)))
    for index in sequence:
        emit({"event": "start", "index": index})
        path = reference if index == REFERENCE else models[index]
        assert path is not None
        try:
            block = _measure_one(runtime, path, protocol, clocks, reader, cores, probe, counters)
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
    probe: Callable[[], object] | None = None,
    counters: Counters | None = None,
    own_core: bool = False,
) -> Block:
    """Warm a call up and take its samples; ``finite`` is left to the caller.

    Args:
        call: one inference.
        conditions: reads the machine's state, outside the timed part.
        meter: of the energy of the samples.
        probe: fixed work that runs before, between and after the samples.
        counters: of hardware events.
        own_core: whether an inference is the work of one thread, which then warms up by its
            processor time: that of others says nothing about being warm.
    """
    meter, counters = meter or NoMeter(), counters or NoCounters()
    fine = own_core and probe is not None and _fine_processor_clock()
    with _no_collection():
        timer = clocks.processor_ns if fine else clocks.wall_ns
        latency_ns, settled = _warm_up(call, protocol, clocks, timer)
        wanted_ns = protocol.min_sample_ms * 1e6
        calls = max(1, math.ceil(wanted_ns / max(latency_ns, 1.0)))
        before = conditions()
        while True:
            # Energy cannot be told apart: where it is measured, no probe runs.
            if isinstance(meter, NoMeter):
                taken = _sample(call, calls, protocol.runs, clocks, probe, fine, wanted_ns)
                energy = None
            else:
                meter.start()
                taken = _sample(call, calls, protocol.runs, clocks, None, fine, wanted_ns)
                energy = meter.stop()
            median = median_of(taken.samples_ns)
            if median >= wanted_ns:
                break
            # The warm-up was slower than the samples: they are all taken again, longer.
            calls = max(calls + 1, math.ceil(calls * 1.05 * wanted_ns / max(median, 1.0)))
        counts = _count(call, calls, counters)
        return Block(
            calls=calls,
            samples_ns=tuple(taken.samples_ns),
            settled=settled,
            finite=True,
            processor_share=taken.processor_share,
            before=before,
            after=conditions(),
            energy_mj=None if energy is None else energy / (calls * protocol.runs),
            processor_ns=tuple(taken.processor_ns),
            waited_ns=tuple(taken.waited_ns),
            probes_ns=tuple(taken.probes_ns),
            first_probes_ns=tuple(taken.first_probes_ns),
            cycles=None if counts is None else counts.cycles / calls,
            instructions=None if counts is None else counts.instructions / calls,
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
        processor_ns=tuple(int(n) for n in value.get("processor_ns", ())),
        waited_ns=tuple(int(n) for n in value.get("waited_ns", ())),
        probes_ns=tuple(int(n) for n in value.get("probes_ns", ())),
        first_probes_ns=tuple(int(n) for n in value.get("first_probes_ns", ())),
        cycles=value.get("cycles"),
        instructions=value.get("instructions"),
    )


def _measure_one(
    runtime: Runtime,
    path: Path,
    protocol: Protocol,
    clocks: Clocks,
    reader: Reader,
    cores: Sequence[int],
    probe: Callable[[], object] | None,
    counters: Counters,
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
        probe=probe,
        counters=counters,
        own_core=runtime.runs_on_cpu and runtime.threads == 1,
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


def _warm_up(
    call: Callable[[], object], protocol: Protocol, clocks: Clocks, timer: Callable[[], int]
) -> tuple[float, bool]:
    """Call until the medians of successive windows agree.

    Args:
        timer: what a call is timed by; windows are of wall time.

    Returns:
        The fastest of these medians, ns, and whether they agreed.
    """
    start = clocks.wall_ns()
    windows: list[float] = []
    while True:
        opened = clocks.wall_ns()
        before = timer()
        durations = []
        while True:
            call()
            after = timer()
            durations.append(after - before)
            before = after
            now = clocks.wall_ns()
            if now - opened >= protocol.warmup_window_ms * 1e6:
                break
        # The median: one preemption within a window says nothing about being warm.
        windows.append(median_of(durations))
        recent = windows[-protocol.warmup_windows :]
        fastest = min(recent)
        if len(recent) == protocol.warmup_windows:
            if max(recent) <= fastest * (1 + protocol.warmup_tolerance):
                return fastest, True
            if now - start >= protocol.warmup_max_s * 1e9:
                return fastest, False


@dataclass
class _Taken:
    """What one round of samples gave; lists by sample, those of probes with one more."""

    samples_ns: list[int]
    processor_ns: list[int]
    waited_ns: list[int]
    probes_ns: list[int]
    first_probes_ns: list[int]
    processor_share: float

    def look(self, probe: Callable[[], object], clock: Callable[[], int]) -> None:
        """Run the probe twice and keep both durations."""
        self.first_probes_ns.append(_timed(probe, clock))
        self.probes_ns.append(_timed(probe, clock))


_FIRST = 10
"""Samples after which it is seen that they are too short: more would be taken for nothing."""


def _sample(
    call: Callable[[], object],
    calls: int,
    runs: int,
    clocks: Clocks,
    probe: Callable[[], object] | None,
    fine: bool,
    wanted_ns: float,
) -> _Taken:
    """Take samples, a probe between any two; only the first few where these are too short.

    Args:
        wanted_ns: what their median should last.
        fine: whether processor time tells how long a sample had no core; else waiting does.
    """
    repeat = range(calls)
    wall, processor = clocks.wall_ns, clocks.processor_ns
    taken = _Taken([0] * runs, [], [], [], [], 1.0)
    opened, used = wall(), processor()
    for run in range(runs):
        if probe is not None:
            taken.look(probe, wall)
        waited = clocks.waited_ns() if probe is not None and not fine else 0
        busy = processor()
        start = wall()
        for _ in repeat:
            call()
        taken.samples_ns[run] = wall() - start
        if fine:
            taken.processor_ns.append(processor() - busy)
        elif probe is not None:
            taken.waited_ns.append(clocks.waited_ns() - waited)
        if run + 1 == _FIRST and median_of(taken.samples_ns[:_FIRST]) < wanted_ns:
            del taken.samples_ns[_FIRST:]
            break
    opened, used = wall() - opened, processor() - used
    taken.processor_share = used / opened if opened else 1.0
    if probe is not None:
        taken.look(probe, wall)
    return taken


def _timed(work: Callable[[], object], clock: Callable[[], int]) -> int:
    start = clock()
    work()
    return clock() - start


def _count(call: Callable[[], object], calls: int, counters: Counters) -> Counts | None:
    """Return the hardware events of ``calls`` inferences, where there are counters."""
    if isinstance(counters, NoCounters):
        return None
    counters.start()
    for _ in range(calls):
        call()
    return counters.stop()


def _fine_processor_clock() -> bool:
    """Whether processor time is counted finely enough for single samples (not on Windows)."""
    return time.get_clock_info("process_time").resolution <= 1e-5


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
        "processor_ns": list(block.processor_ns),
        "waited_ns": list(block.waited_ns),
        "probes_ns": list(block.probes_ns),
        "first_probes_ns": list(block.first_probes_ns),
        "cycles": block.cycles,
        "instructions": block.instructions,
    }


def _failure(index: int, kind: str, error: Exception) -> dict[str, Any]:
    detail = f"{type(error).__name__}: {error}"[:2000]
    return {"event": "failure", "index": index, "kind": kind, "detail": detail}


def _is_allocation(error: Exception) -> bool:
    text = str(error).lower()
    return any(sign in text for sign in ("bad_alloc", "bad allocation", "failed to allocate"))
