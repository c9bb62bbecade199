"""Training a run's supernet on several processes or GPUs, under ``torchrun``.

``torchrun --nproc-per-node 2 -m nas.stages.torchrun JOB --output RUN`` makes the run folder, or
goes on with the one that is there, trains the supernet and stops; ``nas resume RUN`` does the
rest. The batch size is that of all processes together, so their number does not change what is
trained.
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search_spaces.errors import InputError, NasError

if TYPE_CHECKING:
    from nas.job.schema import Job

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    job_file: Annotated[Path, typer.Argument(metavar="JOB", help="The job, a YAML file.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Run folder; by default the job's output or runs/NAME."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code that the job names (module:function).")
    ] = False,
) -> None:
    """Train the supernet of a job on all processes that torchrun started."""
    from nas.job.check import load_job
    from nas.job.trust import Trust, set_trust

    # Processes that torchrun started have nobody to ask.
    set_trust(Trust(everything=trust, remember=True))
    job = load_job(job_file)
    try:
        train_distributed(job, output if output is not None else job.run_folder())
    except NasError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code) from None


def train_distributed(job: Job, folder: Path) -> None:
    """Train the supernet of ``job`` in the run folder ``folder``.

    Raises:
        InputError: the job asks for minutes, which differ from process to process, or the
            folder holds a run of another job.
    """
    from nas.record.run_folder import RunStore
    from nas.record.spending import Spending
    from nas.stages.opened_job import RunContext
    from nas.stages.pipeline import create_run
    from nas.stages.progress import Progress
    from nas.stages.training import train_supernet
    from supernet.training import distributed

    if job.supernet.minutes is not None:
        raise InputError("supernet.minutes cannot be used under torchrun; give epochs instead")
    context = RunContext.of(job, threads=job.threads)
    with distributed.process_group(context.accelerator):
        first = distributed.rank() == 0
        if first and not RunStore(folder).manifest_path.exists():
            create_run(job, folder)
        distributed.barrier()
        store = RunStore.open(folder)
        if store.job() != job:
            raise InputError(f"{folder} holds a run of another job; choose another --output")
        # One process holds the folder and tells about progress for all.
        with (
            store.locked() if first else contextlib.nullcontext(),
            Spending(folder, whole_process=True),
        ):
            progress = Progress() if first else Progress(stream=io.StringIO())
            train_supernet(context, store, progress)


if __name__ == "__main__":
    app()
