"""One network whose images leave early: gates and thresholds chosen, one file, measured.

What a cascade of separate files costs is told by :mod:`nas.studies.exits`. Here the trunk is
shared, so an image that goes on has lost only the heads it passed. Gates and thresholds are
choices: they are picked on one half of the validation images, of all kinds of gates and all
subsets of exits, as the cheapest that loses no more than asked; the other half tells the accuracy
and the mean latency of the file.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InfeasibleError

if TYPE_CHECKING:
    from torch import Tensor

    from devices.runtime import Session
    from supernet.exits.gates import Gate
    from supernet.exits.network import ExitNetwork
    from supernet.plain import PlainNetwork

_SHARES = tuple(i / 20 for i in range(1, 20))
"""Shares of the images that a threshold lets go on, tried at each exit."""


@dataclass(frozen=True)
class Setting:
    """A choice of exits, gates and thresholds.

    Attributes:
        exits: stages that have a head, the last one the whole network.
        gates: of all but the last.
        accuracy: on the images it was chosen on.
        cost: mean of an image, in the unit of the costs.
        left_at: share of the images that left at each exit.
    """

    exits: tuple[int, ...]
    gates: tuple[Gate, ...]
    accuracy: float
    cost: float
    left_at: tuple[float, ...]


def settings(
    network: ExitNetwork,
    outputs: Sequence[Tensor],
    targets: Tensor,
    costs: Mapping[int, float],
    kinds: Sequence[str],
) -> list[Setting]:
    """Return every combination of exits, kind of gate and thresholds.

    Args:
        network: whose exits these are.
        outputs: of each exit, (images, classes).
        targets: (images,) classes.
        costs: exit -> cost of an image that leaves there.
        kinds: of gates, one kind for all exits of a setting.
    """
    from supernet.exits.gates import Gate, learned_gate

    right = [(o.argmax(1) == targets).numpy() for o in outputs]
    found = []
    for kind in kinds:
        scores: dict[int, np.ndarray] = {}
        bases: dict[int, Gate] = {}
        for k in range(len(outputs) - 1):
            answers = outputs[k].argmax(1) == targets
            if kind == "learned":
                if bool(answers.all()) or not bool(answers.any()):
                    continue
                bases[k] = learned_gate(outputs[k], answers)
            else:
                bases[k] = Gate(kind, 0.0)
            scores[k] = bases[k].score(outputs[k]).numpy()
        for count in range(1, len(outputs)):
            for early in itertools.combinations(sorted(scores), count):
                found += _thresholds(network, early, bases, scores, right, costs)
    return found


def _thresholds(
    network: ExitNetwork,
    early: tuple[int, ...],
    bases: Mapping[int, Gate],
    scores: Mapping[int, np.ndarray],
    right: Sequence[np.ndarray],
    costs: Mapping[int, float],
) -> list[Setting]:
    # With many exits, fewer thresholds of each, so that their product stays small.
    step = 1 if len(early) == 1 else 2 if len(early) == 2 else 5
    grids = [np.quantile(scores[k], _SHARES[::step]) for k in early]
    stages = (*(network.exits[k] for k in early), network.exits[-1])
    found = []
    for chosen in itertools.product(*grids):
        going = np.ones(len(right[0]), dtype=bool)
        correct, cost, left = 0, 0.0, []
        for k, threshold in zip(early, chosen, strict=True):
            done = going & (scores[k] >= threshold)
            correct += int(right[k][done].sum())
            cost += costs[network.exits[k]] * done.mean()
            left.append(float(done.mean()))
            going &= ~done
        correct += int(right[-1][going].sum())
        cost += costs[network.exits[-1]] * going.mean()
        gates = tuple(
            replace(bases[k], threshold=float(t)) for k, t in zip(early, chosen, strict=True)
        )
        found.append(
            Setting(stages, gates, correct / len(going), float(cost), (*left, float(going.mean())))
        )
    return found


def cheapest(found: Sequence[Setting], whole: float, loss: float) -> Setting:
    """Return the setting of least cost that loses at most ``loss`` of the accuracy ``whole``.

    Raises:
        InfeasibleError: none does.
    """
    good = [one for one in found if one.accuracy >= whole - loss]
    if not good:
        best = max(found, key=lambda one: one.accuracy, default=None)
        told = "there are none" if best is None else f"the best loses {whole - best.accuracy:.4f}"
        raise InfeasibleError(f"no setting of exits loses at most {loss:g} accuracy ({told})")
    return min(good, key=lambda one: (one.cost, -one.accuracy))


def with_setting(networks: Mapping[int, PlainNetwork], setting: Setting) -> ExitNetwork:
    """Return the exits of a setting as one network with its gates."""
    from supernet.exits.network import ExitNetwork

    return ExitNetwork({stage: networks[stage] for stage in setting.exits}, setting.gates)


def mean_latencies(
    sessions: Mapping[str, Session],
    images: np.ndarray,
    *,
    rounds: int = 5,
    clock: Callable[[], int] = time.thread_time_ns,
) -> dict[str, dict[str, float]]:
    """Run files image by image, in turn, and return the mean latency of each.

    An image's time is the least of ``rounds`` calls, for what disturbs a call only lengthens it;
    the mean is over images, which take different ways.

    Args:
        sessions: of one thread each.
        images: (images, channels, height, width).
        rounds: calls of each file for each image.
        clock: in nanoseconds; the processor time of this thread.

    Returns:
        of each file ``mean_ms``, and ``low_ms`` and ``high_ms``, its 95 % interval over images.
    """
    times = {name: np.full(len(images), np.inf) for name in sessions}
    for k, image in enumerate(images):
        # Bound first, as every measurement here is: converting the input is not the model's time.
        calls = {name: session.bind(image[None]) for name, session in sessions.items()}
        for _ in range(rounds):
            for name, call in calls.items():
                begin = clock()
                call()
                times[name][k] = min(times[name][k], clock() - begin)
    found = {}
    for name, values in times.items():
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        mean = float(values.mean())
        found[name] = {
            "mean_ms": mean * 1e-6,
            "low_ms": float(mean - half) * 1e-6,
            "high_ms": float(mean + half) * 1e-6,
        }
    return found


def told(setting: Setting) -> dict[str, Any]:
    """Return a setting as JSON-compatible data."""
    return {
        "exits": list(setting.exits),
        "gates": [
            {
                "kind": gate.kind,
                "threshold": gate.threshold,
                **({"weight": list(gate.weight), "bias": gate.bias} if gate.weight else {}),
            }
            for gate in setting.gates
        ],
        "accuracy_where_chosen": setting.accuracy,
        "expected_cost": setting.cost,
        "left_at": list(setting.left_at),
    }


def told_lines(shared: Mapping[str, Any]) -> list[str]:
    """Return what the study says of the one file, in lines for a terminal."""
    if "refused" in shared:
        return [f"no file of all exits: {shared['refused']}"]
    gates = ", ".join(f"{g['kind']} >= {g['threshold']:.3g}" for g in shared["gates"])
    lines = [
        f"one file, {shared['model']}, of exits {','.join(map(str, shared['exits']))}: {gates}",
        f"accuracy {shared['accuracy']:.4f}, the whole {shared['accuracy_of_the_whole']:.4f}; "
        f"left early {1 - shared['left_at'][-1]:.3f}",
    ]
    if "latency" in shared:
        ms = {name: value["mean_ms"] for name, value in shared["latency"].items()}
        lines.append(f"mean ms of an image: {ms['shared']:.4f}, the whole {ms['whole']:.4f}")
    elif "not_measured" in shared:
        lines.append(f"not measured: {shared['not_measured']}")
    return lines


def load_session(runtime: str, options: Mapping[str, Any], path: Path) -> Session:
    """Return a file loaded by a runtime of this machine, one thread, one image.

    Raises:
        InputError: the runtime cannot load it; the reason is its own.
    """
    from devices.runtime import make_runtime

    return make_runtime(runtime, {**options, "threads": 1, "batch": 1}).load(path)
