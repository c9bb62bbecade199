"""A machine that is played: clocks, sysfs and latencies without hardware.

With it a protocol can be tried on a device whose true latency is known, and on one that
throttles or is busy at a moment of one's choosing; the loop and the judgement are the real
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from devices.measuring.child import Sampler, with_reference
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import Block, Clocks, Failure, block_from_json, run_sequence
from devices.runtime import Runtime, Session, TensorSpec


@dataclass
class PlayedMachine:
    """A machine whose inferences take ``base_ms`` x process effect x noise x slowdown.

    ``slowdown`` maps the time since the start in s to a factor of the latency;
    ``preempt`` maps it to ms during which somebody else has the processor.
    """

    rng: np.random.Generator
    base_ms: float = 1.2
    between: float = 0.004
    within: float = 0.01
    slowdown: Callable[[float], float] = lambda now: 1.0
    preempt: Callable[[float], float] = lambda now: 0.0
    files: Callable[[str, float], str | None] = lambda path, now: None
    wall: int = 0
    processor: int = 0
    effect: float = 1.0
    probe_ms: float = 0.05
    noise: list[float] = field(default_factory=list)

    def start_process(self) -> None:
        """Begin a process: it takes 0.3 s and has a speed of its own."""
        self.effect = float(np.exp(self.rng.normal(0, self.between)))
        self.wall += int(300e6)

    def infer(self, factor: float) -> None:
        """Let the clocks run on by one inference of ``factor`` x ``base_ms``."""
        self.work(self.base_ms * factor * self.effect)

    def probe(self) -> None:
        """Let the clocks run on by the probe; a process's own speed is not the probe's."""
        self.work(self.probe_ms)

    def work(self, quiet_ms: float) -> None:
        """Let the clocks run on by what takes ``quiet_ms`` when nothing disturbs it."""
        if not self.noise:
            self.noise = np.exp(self.rng.normal(0, self.within, 1000)).tolist()
        now = self.wall * 1e-9
        busy = quiet_ms * self.noise.pop() * self.slowdown(now)
        self.wall += int((busy + self.preempt(now)) * 1e6)
        self.processor += int(busy * 1e6)

    @property
    def clocks(self) -> Clocks:
        """The clocks of this machine, which stand still unless it works or sleeps."""
        return Clocks(
            wall_ns=lambda: self.wall,
            processor_ns=lambda: self.processor,
            waited_ns=lambda: self.wall - self.processor,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        """Let the wall clock run on by ``seconds``."""
        self.wall += int(seconds * 1e9)

    def read(self, path: str) -> str | None:
        """Return the text of a file under /sys or /proc at this moment, or None."""
        return self.files(path, self.wall * 1e-9)


class PlayedSession(Session):
    """A model whose inference takes what the machine plays."""

    inputs = (TensorSpec("x", (1, 3), "float32"),)

    def __init__(self, infer: Callable[[], None], output: float) -> None:
        self._infer, self._output = infer, output

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        self._infer()
        return (np.array([self._output], dtype=np.float32),)

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """See :meth:`Session.bind`: an inference of the machine."""
        return self._infer


class PlayedRuntime(Runtime):
    """Reads a model file whose text is "factor [output]"; "bad" cannot be loaded."""

    name: ClassVar[str] = "played"

    def __init__(self, machine: PlayedMachine, **options: Any) -> None:
        super().__init__(**options)
        self.machine = machine
        self.loaded: list[str] = []

    @property
    def version(self) -> str:
        """See :meth:`Runtime.version`."""
        return "1"

    def load(self, path: Path) -> Session:
        """See :meth:`Runtime.load`: notes the file's name in ``loaded``."""
        self.loaded.append(path.name)
        words = path.read_text().split()
        if words[0] == "bad":
            raise RuntimeError("this model cannot be loaded")
        output = float(words[1]) if len(words) > 1 else 0.0
        return PlayedSession(lambda: self.machine.infer(float(words[0])), output)


class PlayedSampler(Sampler):
    """Runs the real loop in this process, on the played machine's clocks."""

    def __init__(self, machine: PlayedMachine) -> None:
        self.machine = machine
        self.sequences: list[list[int]] = []

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
        """See :meth:`Sampler.sample`."""
        self.sequences.append(list(sequence))
        self.machine.start_process()
        messages: list[dict] = []
        run_sequence(
            runtime,
            models,
            sequence,
            protocol,
            reference=reference,
            emit=messages.append,
            clocks=self.machine.clocks,
            reader=self.machine.read,
            cores=[0],
            probe=self.machine.probe,
        )
        done: list[tuple[int, Block | Failure]] = []
        for message in messages:
            if message["event"] == "block":
                done.append((message["index"], block_from_json(message["block"])))
            elif message["event"] == "failure":
                done.append((message["index"], Failure(message["kind"], message["detail"])))
        return with_reference(done, own_core=runtime.runs_on_cpu and runtime.threads == 1)
