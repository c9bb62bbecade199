"""optuna-dashboard on the study of a run, on the loopback address and without changing anything."""

from __future__ import annotations

from pathlib import Path

from nas.live.loopback import LoopbackServer
from nas.record.run_folder import RunStore
from nas.record.run_trials import RunTrials
from search_spaces.errors import EnvironmentProblem, MissingExtraError


def dashboard_server(run: Path, port: int = 0) -> LoopbackServer:
    """Return a server of optuna-dashboard on the study of ``run``.

    The run's database is opened for reading, and requests that would change something are refused.

    Args:
        run: folder of a run, under way or ended.
        port: 0 for a free one.

    Raises:
        InputError: the folder holds no run.
        EnvironmentProblem: it has no study yet, or the port is taken.
        MissingExtraError: optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import wsgi
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna-dashboard", "dashboard") from error
    store = RunStore.open(Path(run))
    job = store.job()
    if job.study is None and not store.study.is_file():
        raise EnvironmentProblem(
            f"{run} has no study yet: it is made before the search; look again then, or follow the "
            f"run with: nas watch {run}"
        )
    return LoopbackServer(wsgi(RunTrials(job.study or store.study).storage()), port)
