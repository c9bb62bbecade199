"""A Ray cluster: workers on many machines that see the run folder under the same path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nas.executors.base import EXECUTORS, MAX_ATTEMPTS, Executor, Item, Work
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError


@EXECUTORS.register("ray")
class RayExecutor(Executor):
    """Actors of a Ray cluster, each with the function built once.

    An actor that dies is started again and its item is run again, at most
    ``MAX_ATTEMPTS`` times.

    Args:
        workers: actors; None takes one for each CPU the cluster has.
        address: of a running cluster (``auto``, ``host:port``, ``ray://...``); None starts one on
            this machine.
        cpus: CPUs reserved for a worker, which it may compute with.

    Raises:
        MissingExtraError: Ray is not installed.
        EnvironmentProblem: no cluster at the address.
    """

    def __init__(
        self, *, workers: int | None = None, address: str | None = None, cpus: int = 1
    ) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"executor 'ray' needs at least one worker, not {workers}")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MissingExtraError("ray", "ray") from error
        self._ray, self._cpus, self._started = ray, cpus, False
        if not ray.is_initialized():
            local = {} if address is not None or workers is None else {"num_cpus": workers * cpus}
            try:
                ray.init(
                    address=address, log_to_driver=False, include_dashboard=False, **local
                ) if address is None else ray.init(address=address, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise EnvironmentProblem(
                    f"no Ray cluster at {address or 'this machine'}: {error}; start one with "
                    "'ray start --head' or correct executor_options.address"
                ) from error
            self._started = True
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
        self._actors: list[Any] = []
        self._work: Work | None = None

    def run(self, work: Work, items: Sequence[Item]) -> Iterator[tuple[int, Any]]:
        """See :meth:`Executor.run`."""
        if not items:
            return
        ray = self._ray
        free = self._actors_for(work)
        waiting = list(range(len(items)))
        running: dict[Any, tuple[int, Any]] = {}
        free = list(free)
        while waiting or running:
            while waiting and free:
                index, actor = waiting.pop(0), free.pop()
                running[actor.run.remote(dict(items[index]))] = (index, actor)
            (ready,), _ = ray.wait(list(running), num_returns=1)
            index, actor = running.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                raise EnvironmentProblem(
                    f"a Ray worker was lost {MAX_ATTEMPTS} times at {dict(items[index])}: {error}; "
                    "go on with 'nas resume' once the cluster is well"
                ) from error
            free.append(actor)
            yield index, result

    def close(self) -> None:
        """Stop the actors, and the cluster if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
        if self._started and self._ray.is_initialized():
            self._ray.shutdown()
            self._started = False

    def _actors_for(self, work: Work) -> list[Any]:
        if self._work is not None and self._work != work:
            for actor in self._actors:
                self._ray.kill(actor)
            self._actors = []
        if not self._actors:
            remote = self._ray.remote(
                num_cpus=self._cpus, max_restarts=-1, max_task_retries=MAX_ATTEMPTS - 1
            )(_Worker)
            sent = Work(work.target, dict(work.settings))
            self._actors = [remote.remote(sent, self._cpus) for _ in range(self.workers)]
            self._work = work
        return self._actors


class _Worker:
    """One actor: a function, and calls of it."""

    def __init__(self, work: Work, threads: int) -> None:
        self._function = work.build(threads=threads)

    def run(self, item: Item) -> Any:
        """Return the function's result for an item."""
        return self._function(item)
