"""The command line. Every command is a thin call of the Python API.

Exit codes: 0 done, 2 bad input, 3 infeasible constraints, 4 something this machine
lacks (an extra, a data set, disk space, a permission, a device), 130 interrupted, 143 told to
end (SIGTERM).
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nas.cli.generate import generate
from nas.cli.hand_over import demo, export
from nas.cli.init import init
from nas.cli.look import RunFolder, dashboard, existing_run, page_of, report, watch
from nas.job.trust import Trust, set_trust
from nas.job.yaml_source import DiagnosticsError
from search_spaces.errors import EnvironmentProblem, InputError, NasError
from search_spaces.terminal import plain_text, quoted

EXIT_CODES = (
    "Exit codes: 0 done, 2 bad input, 3 infeasible constraints, 4 something this machine lacks "
    "(an extra, data, disk space, a permission, a device), 130 interrupted, 143 told to end."
)

SUB_APPS = {
    "latency": "nas.cli.latency",
    "device": "nas.cli.device",
    "bits": "nas.cli.bits.command",
    "compress": "nas.cli.compress",
    "inspect": "nas.cli.inspect",
    "compare": "nas.cli.compare",
    "study": "nas.cli.study",
    "deploy": "nas.cli.deploy",
}
"""Name of a command group -> module whose ``app`` it is; imported when it is called."""

OWN_PACKAGES = ("nas", "supernet", "predictors", "devices", "search_spaces")
"""A module missing from one of these is a fault of the installation, told with its traceback."""


OUT_OF_MEMORY = (
    "memory ran out. What was finished is kept: give the process more (ulimit -v, the container's "
    "limit), or ask for less at a time (workers, supernet.batch_size, data.image_size), then go on "
    "with: nas resume RUN"
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in whichever library it did."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return any(
        words in text
        for words in ("can't allocate memory", "out of memory", "bad_alloc", "start new thread")
    )


class _Group(TyperGroup):
    """Mounts command groups lazily and turns every known error into a line and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, of groups whose package is there too."""
        mounted = [name for name, module in SUB_APPS.items() if importlib.util.find_spec(module)]
        return [*super().list_commands(ctx), *mounted]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name; the module of a group is imported only here."""
        module = SUB_APPS.get(cmd_name)
        if module is None or importlib.util.find_spec(module) is None:
            return super().get_command(ctx, cmd_name)
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``--trust`` from wherever it stands, for every command has it."""
        own = args[: args.index("--")] if "--" in args else args
        trusted = "--trust" in own
        rest = [word for word in own if word != "--trust"] + args[len(own) :]
        set_trust(Trust(everything=trusted, remember=True, ask=_ask))
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a known error ends it with a line on stderr and its exit code."""
        try:
            return super().invoke(ctx)
        except DiagnosticsError as error:
            _fail(str(error), error.exit_code)
        except NasError as error:
            _fail(f"error: {error}", error.exit_code)
        except BrokenPipeError:
            # The reader ("nas schema | head") has had enough; later flushes must not fail either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(128 + signal.SIGPIPE) from None
        except OSError as error:
            _fail(f"error: {_os_message(error)}", EnvironmentProblem.exit_code)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] in OWN_PACKAGES:
                raise
            _fail(f"error: {_missing_module(error)}", EnvironmentProblem.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenExecutor:
            _fail(f"error: a worker process died; {OUT_OF_MEMORY}", EnvironmentProblem.exit_code)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            _fail(f"error: {OUT_OF_MEMORY}", EnvironmentProblem.exit_code)


app = typer.Typer(
    name="nas",
    cls=_Group,
    help="Hardware-aware neural architecture search: from one YAML job to a front of quantised "
    "models that run on your board.\n\n"
    "\b\nFirst steps:\n"
    "  nas init job.yaml         write a commented job\n"
    "  nas validate job.yaml     every mistake in it, with its line and the fix\n"
    "  nas run job.yaml          supernet, search, verification, models, report\n"
    "  nas export runs/NAME      hand over the knee of the front\n"
    "  nas compress MODEL        the same from a network that is trained\n"
    "  nas demo                  all of it on the digits that come with scikit-learn\n\n"
    f"{EXIT_CODES}",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job, a YAML file.")]
Page = Annotated[
    bool, typer.Option("--page", help="Serve a page of the progress on this machine, as nas watch.")
]
PagePort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port of the page; by default a free one. Implies --page."),
]


@app.command()
def validate(job_file: JobFile) -> None:
    """Check a job: every mistake at once, as path:line:column: message.

    Nothing is trained and no data is read. Prints the size of the space, the devices and the
    limits. Exit code 2 where something is wrong.
    """
    from nas.cli.summary import summary
    from nas.job.check import load_job

    job = load_job(job_file)
    typer.echo(f"OK: {job_file} is a valid job")
    for line in summary(job):
        typer.echo(f"  {line}")


@app.command()
def run(
    job_file: JobFile,
    output: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Run folder; by default the job's output or runs/NAME."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it would take.")
    ] = False,
    measurements: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Replay the latencies of this store or earlier run."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Override the job's seed.")] = None,
    page: Page = False,
    page_port: PagePort = None,
) -> None:
    """Run a whole job: supernet, predictors, search, verification, export, report.

    Writes RUN/front.csv, RUN/report.html and RUN/models. What is finished is kept: after an
    interruption go on with nas resume RUN. Exit code 3 means that no architecture keeps the
    limits; the message names the closest one.

    \b
    nas run job.yaml --dry-run                      what it would do, and how long
    nas run job.yaml --seed 1 --output runs/second
    nas run job.yaml --measurements runs/first      the latencies of an earlier run
    nas run job.yaml --page                         stages, loss and front so far in a browser
    """
    from nas.job.check import load_job

    job = load_job(job_file, changes={} if seed is None else {"seed": seed})
    folder = output if output is not None else job.run_folder()
    if measurements is not None and not measurements.exists():
        raise InputError(f"--measurements: {measurements} does not exist")
    if dry_run:
        from nas.stages.dry_run import estimate
        from nas.stages.progress import Progress

        for line in estimate(job, folder, told=Progress().log).lines():
            typer.echo(line)
        return
    from nas.stages import pipeline
    from nas.stages.progress import Progress

    with resumable(folder), page_of(folder, page, page_port):
        pipeline.run(
            job, folder, measurements=measurements, progress=Progress(), whole_process=True
        )
    typer.echo(f"front:  {folder / 'front.csv'}")
    typer.echo(f"report: {folder / 'report.html'}")


@app.command()
def resume(run_folder: RunFolder, page: Page = False, page_port: PagePort = None) -> None:
    """Go on with a run that was interrupted; nothing is evaluated twice.

    Training goes on from its checkpoint; evaluations and measurements are read back. The job is
    the one that the run began with; a changed job is a new run (see search.warm_start).
    """
    existing_run(run_folder)
    from nas.stages import pipeline
    from nas.stages.progress import Progress

    with resumable(run_folder), page_of(run_folder, page, page_port):
        pipeline.resume(run_folder, progress=Progress(), whole_process=True)
    typer.echo(f"front:  {run_folder / 'front.csv'}")
    typer.echo(f"report: {run_folder / 'report.html'}")


app.command()(report)
app.command()(watch)
app.command()(dashboard)
app.command()(export)
app.command()(demo)
app.command()(generate)
app.command()(init)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a job, for editors.

    \b
    nas schema > job.schema.json
    # then, as the first line of a job:
    # yaml-language-server: $schema=job.schema.json
    """
    from nas.job.schema import job_schema

    typer.echo(json.dumps(job_schema(), indent=2))


@app.command()
def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not run a model in every runtime.")
    ] = False,
) -> None:
    """Show what is installed, which runtimes work, and whether this machine is fit to measure on.

    Each runtime runs a small model in a process of its own. Lines that begin with "missing" say
    how to install what is not there; "doubt" says what makes latencies measured here unsteady.
    """
    from nas.boards.doctor import diagnose

    for line in diagnose(run_models=not quick):
        typer.echo(line)


@app.command()
def agent(
    hub: Annotated[str, typer.Option(metavar="URL", help="The hub to dial.")],
    token_file: Annotated[
        Path, typer.Option("--token-file", metavar="F", help="File with this board's token.")
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the agent; has a default.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="What the board's owner allows.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the board; by default the one the token is for.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Authority of the hub's certificate.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Own certificate.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
) -> None:
    """Run the agent of this board: it dials the hub and measures what it is given.

    It listens on no port. The token comes from nas device token add, on the hub's side; --config
    names what the owner of the board allows. Stop it with Ctrl-C: what it measured is kept.
    """
    from nas.cli.device import run_agent_command

    run_agent_command(hub, token_file, data, config, name, ca, cert, key)


@app.callback()
def _nas(
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run the code that the job names (module:function), and remember that. "
            "May stand after a command, too.",
        ),
    ] = False,
) -> None:
    pass


def _ask(question: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{question}. Run it?", default=False, err=True)


def main() -> None:
    """Run the command line; the entry point of the ``nas`` script."""
    app()


class _ToldToEnd(KeyboardInterrupt):
    """SIGTERM, as of a scheduler or a machine that shuts down: ends what Ctrl-C ends."""


def _end(number: int, frame: FrameType | None) -> None:
    # One is enough: a second one must not cut off what the first lets finish.
    signal.signal(number, signal.SIG_IGN)
    raise _ToldToEnd


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Tell whoever ends a run, or has no room for it, how to go on with it."""
    # Whoever runs commands elsewhere than in the main thread takes signals themselves.
    takes_signals = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _end) if takes_signals else None
    try:
        yield
    except KeyboardInterrupt as error:
        told = isinstance(error, _ToldToEnd)
        code = 128 + signal.SIGTERM if told else 130
        what = "told to end (SIGTERM)" if told else "interrupted"
        if not folder.is_dir():  # before anything was kept
            _fail(what, code)
        _fail(f"{what}; go on with: nas resume {quoted(folder)}", code)
    except OSError as error:
        if error.errno not in _FULL or not (folder / "manifest.json").is_file():
            raise
        _fail(
            f"no space left on the disk{_where(error)}; what was finished is kept: make room and "
            f"go on with: nas resume {quoted(folder)}",
            4,
        )
    finally:
        if takes_signals:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


_FULL = (errno.ENOSPC, errno.EDQUOT)


def _where(error: OSError) -> str:
    # Of two files, as when one is copied, the second is the one that is written.
    name = error.filename2 or error.filename
    return f": {name}" if name else ""


def _os_message(error: OSError) -> str:
    where = _where(error)
    if error.errno in _FULL:
        return f"no space left on the disk{where}; make room and repeat the command"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission{where}; give yourself access to it, or choose another place"
    return f"{error.strerror or error}{where}"


def _missing_module(error: ModuleNotFoundError) -> str:
    package = (error.name or "a package").split(".")[0]
    return (
        f"{package} is not installed; install the extras with: pip install 'edge-nas[search,hub]'"
    )


def _fail(message: str, code: int) -> None:
    # Straight to the stream: no wrapping, so that other tools can read path:line:column.
    print(plain_text(message), file=sys.stderr, flush=True)
    raise SystemExit(code)
