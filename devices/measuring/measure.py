"""Measure model files by the protocol: interleaved, judged, retried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from devices.measuring.attempt import Attempt, conclude
from devices.measuring.child import ChildSampler, Sampler
from devices.measuring.conditions import allowed_cores, choose_cores, machine
from devices.measuring.energy import NoMeter, make_meter
from devices.measuring.measurement import FINAL, Measurement, Reason
from devices.measuring.protocol import Protocol
from devices.measuring.quiet import quiet_level
from devices.measuring.sampling import REFERENCE, Block, Failure
from devices.measuring.statistics import Spread, pooled
from devices.runtime import Runtime, existing_file
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng


def measure(
    models: Sequence[Path],
    runtime: Runtime,
    protocol: Protocol | None = None,
    *,
    reference: Path | None = None,
    sampler: Sampler | None = None,
) -> list[Measurement]:
    """Measure a list of models together.

    Each of ``protocol.processes`` fresh processes measures all of them, in a random order
    of its own, so that a slow change of the machine spreads over all models instead of falling
    on one; a reference model, where there is one, is first, last and every few. What is rejected
    is measured again with the others that were rejected.

    Args:
        models: the files; a single one is a list of one.
        reference: the model to see drift by; by default the first of several, and none where
            probes between the samples tell the same more finely.
        sampler: how one process is run; by default as a child with limits.

    Returns:
        One measurement a model, in order; a model that cannot be measured has an invalid
        one with its reasons.

    Raises:
        InputError: a file is missing, more threads than cores are asked for, or the source of
            energy cannot be read.
        EnvironmentProblem: measuring is impossible here.
    """
    protocol = protocol or Protocol()
    sampler = sampler or runtime.sampler() or ChildSampler()
    models = [Path(model).absolute() for model in models]
    if not models:
        return []
    if reference is None and len(models) > 1 and not _probed(runtime, protocol, sampler):
        reference = models[0]
    for path in [*models, *([reference] if reference else [])]:
        existing_file(path)
    cores = _cores(runtime, protocol)
    attempts: list[list[Attempt]] = [[] for _ in models]
    probed: list[Block] = []
    waiting = list(range(len(models)))
    for number in range(1 + protocol.retries):
        collected: dict[int, list[Block | Failure]] = {
            index: list(attempts[index][-1].carried) if number else [] for index in waiting
        }
        for process in range(_processes(protocol, [attempts[index] for index in waiting])):
            sequence = order(waiting, protocol, number, process, with_reference=bool(reference))
            outcomes = sampler.sample(
                runtime, models, sequence, protocol, reference=reference, cores=cores
            )
            for index in waiting:
                missing = Failure("process-crashed", "the process reported nothing")
                outcome = outcomes.get(index, missing)
                collected[index].append(outcome)
                probed += [outcome] if isinstance(outcome, Block) else []
        for index, attempt in _judged(collected, runtime, protocol, probed).items():
            attempts[index].append(attempt)
        waiting = [
            index
            for index in waiting
            if attempts[index][-1].reasons and not FINAL.intersection(attempts[index][-1].reasons)
        ]
        if not waiting:
            break
    return [
        conclude(
            tried,
            runtime=runtime.name,
            runtime_version=runtime.version,
            parameters=runtime.parameters(),
            machine=machine(),
        )
        for tried in attempts
    ]


def _judged(
    collected: Mapping[int, Sequence[Block | Failure]],
    runtime: Runtime,
    protocol: Protocol,
    probed: Sequence[Block],
) -> dict[int, Attempt]:
    """Return the attempt at each model, knowing how far apart processes of the others lie.

    Args:
        collected: outcomes by model.
        probed: every block of this measurement so far; its probes tell the machine's speed.
    """
    levels = {
        index: quiet_level(probed, [one for one in outcomes if isinstance(one, Block)])
        for index, outcomes in collected.items()
    }

    def judge(index: int, peers: Spread | None) -> Attempt:
        return Attempt(
            outcomes=tuple(collected[index]),
            runs_on_cpu=runtime.runs_on_cpu,
            threads=runtime.threads,
            protocol=protocol,
            level=levels[index],
            peers=peers,
        )

    alone = {index: judge(index, None) for index in collected}
    # What is rejected for another reason than its width says nothing about its neighbours.
    sound = {i: a for i, a in alone.items() if set(a.reasons) <= {Reason.INTERVAL}}
    spreads = {i: attempt.spread for i, attempt in sound.items() if attempt.spread is not None}
    return {
        index: judge(index, pooled([one for i, one in spreads.items() if i != index]))
        for index in collected
    }


def _processes(protocol: Protocol, waiting: Sequence[Sequence[Attempt]]) -> int:
    """Return how many processes the next attempt takes.

    As many as the protocol says, or, where what is undisturbed stays, as many as are missing:
    at least two, and half of the protocol's for an interval that is still too wide.
    """
    tried = [attempts[-1] for attempts in waiting if attempts]
    if not tried or not all(attempt.carried for attempt in tried):
        return protocol.processes
    lacking = max(protocol.processes - len(attempt.carried) for attempt in tried)
    return min(protocol.processes, max(2, lacking, math.ceil(protocol.processes / 2)))


def order(
    indices: Sequence[int],
    protocol: Protocol,
    attempt: int,
    process: int,
    *,
    with_reference: bool,
) -> list[int]:
    """Return the sequence of one process: shuffled, the reference first, last and every few."""
    rng = derive_rng(protocol.seed, "order", attempt, process)
    shuffled = [indices[place] for place in rng.permutation(len(indices))]
    if not with_reference:
        return shuffled
    groups = np.arange(0, len(shuffled), protocol.reference_every)
    sequence = [REFERENCE]
    for start in groups:
        sequence += [*shuffled[start : start + protocol.reference_every], REFERENCE]
    return sequence


def _probed(runtime: Runtime, protocol: Protocol, sampler: Sampler) -> bool:
    """Whether probes run between the samples: not where energy is measured, see ``time_calls``."""
    no_meter = isinstance(make_meter(protocol.energy_source), NoMeter)
    return sampler.probes and runtime.runs_on_cpu and no_meter


def _cores(runtime: Runtime, protocol: Protocol) -> list[int]:
    if not protocol.pin:
        return allowed_cores()
    if protocol.cores is not None:
        missing = sorted(set(protocol.cores) - set(allowed_cores()))
        if missing:
            raise InputError(
                f"protocol cores {missing} are not among those this process may use "
                f"({allowed_cores()})"
            )
        return list(protocol.cores)
    return choose_cores(runtime.threads)
