"""``nas device``: what measures here and elsewhere, one measurement, the hub and its tokens."""

from __future__ import annotations

import json as json_text
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.device_calibration import calibrate
from nas.cli.device_options import (
    Again,
    Authority,
    Batch,
    Board,
    Certificate,
    Hub,
    Json,
    Key,
    NeededHub,
    NeededTokenFile,
    Options,
    Processes,
    ProtocolOptions,
    Runs,
    RuntimeName,
    Store,
    Threads,
    TokenFile,
    both_or_neither,
    chosen_device,
    chosen_protocol,
    figures,
    key_values,
)
from search_spaces.errors import InputError
from search_spaces.terminal import plain_text

if TYPE_CHECKING:
    from devices.fleet.link import HubLink
    from devices.fleet.messages import Description, DeviceView
    from devices.measuring.measurement import Measurement

app = typer.Typer(
    name="device",
    help="Runtimes on this machine, single measurements, and the hub that boards dial into.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
token_app = typer.Typer(help="Tokens of a hub.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(token_app, name="token")
app.command()(calibrate)


@app.command("list")
def list_devices(
    hub: Hub = None,
    token_file: TokenFile = None,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    json: Json = False,
) -> None:
    """Show the runtimes of this machine, or the boards of a hub."""
    if hub is None:
        from devices.fleet.agent.config import AgentConfig
        from devices.fleet.agent.workshop import Workshop

        workshop = Workshop(AgentConfig())
        about = workshop.describe(opt_in=True)
        for name, why in workshop.broken.items():
            typer.echo(f"warning: runtime {name} is left out: {why}", err=True)
        if json:
            typer.echo(about.model_dump_json(indent=2))
            return
        for line in _about(about):
            typer.echo(line)
        return
    from devices.fleet.messages import Devices

    fleet = _link(hub, token_file, ca, cert, key).ask("GET", "/api/devices", Devices)
    if json:
        typer.echo(fleet.model_dump_json(indent=2))
        return
    if not fleet.devices:
        typer.echo("no board has registered with this hub yet")
    for view in fleet.devices:
        for line in _board_lines(view):
            typer.echo(line)


@app.command()
def measure(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files.")],
    runtime: RuntimeName = "onnxruntime",
    threads: Threads = 1,
    batch: Batch = 1,
    option: Options = None,
    hub: Hub = None,
    token_file: TokenFile = None,
    device: Board = None,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
    processes: Processes = None,
    runs: Runs = None,
    protocol: ProtocolOptions = None,
    store: Store = None,
    again: Again = False,
    json: Json = False,
) -> None:
    """Measure model files, here or on a board."""
    from devices.measuring.store import MeasurementStore
    from devices.runtime import existing_file

    for model in models:
        existing_file(model)
    chosen = chosen_protocol(protocol, processes, runs)
    target = chosen_device(
        runtime, threads, batch, key_values(option, "--option"), hub, token_file, device, ca, again,
        cert, key,
    )  # fmt: skip
    target.check()

    def show(index: int, measurement: Measurement) -> None:
        if not json:
            typer.echo(_measured(models[index], measurement))

    found = target.measure(
        models,
        protocol=chosen,
        store=None if store is None else MeasurementStore(store),
        on_result=show,
    )
    if json:
        named = zip(models, found, strict=True)
        values = [{"model": str(model), **m.to_json()} for model, m in named]
        typer.echo(json_text.dumps(values, indent=2))
    if any(not m.valid and m.latency_ms != m.latency_ms for m in found):
        raise InputError("a model could not be measured; see above")


@app.command()
def serve(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the hub.")],
    token_file: Annotated[
        Path, typer.Option("--token-file", metavar="F", help="File with the one admin token.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    tls_cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Its key.")] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Clients must show a certificate signed by this."),
    ] = None,
) -> None:
    """Serve the hub that boards dial into; stop it with Ctrl-C or SIGTERM."""
    from devices.fleet.hub.server import Tls
    from devices.fleet.hub.server import serve as serve_hub

    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert and --tls-key belong together")
    if client_ca is not None and tls_cert is None:
        raise InputError("--client-ca needs --tls-cert and --tls-key")
    _log()
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = Tls(tls_cert, tls_key, client_ca)
    try:
        serve_hub(
            host=host,
            port=port,
            data=data,
            token_file=token_file,
            tls=tls,
            on_ready=lambda url: typer.echo(f"hub: {url}"),
        )
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command()
def release(
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="A board in quarantine.")],
    hub: NeededHub,
    token_file: NeededTokenFile,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
) -> None:
    """End a board's quarantine, once it is repaired."""
    _link(hub, token_file, ca, cert, key).tell("POST", f"/api/devices/{name}/release")
    typer.echo(f"{name} takes work again")


@app.command()
def export(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A measurement store.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .csv or .parquet.")],
    samples: Annotated[
        bool,
        typer.Option("--samples", help="Every measurement with its raw samples (Parquet)."),
    ] = False,
    space: Annotated[str | None, typer.Option(help="Only architectures of this space.")] = None,
    variant: Annotated[str | None, typer.Option(help="Only this kind of file.")] = None,
    invalid: Annotated[
        bool, typer.Option("--include-invalid", help="Also what the protocol rejected.")
    ] = False,
) -> None:
    """Write a store as a latency table, or as all its samples."""
    from devices.measuring.store import MeasurementStore
    from devices.measuring.store_export import export_samples, export_table

    if not store.is_file():
        raise InputError(f"no measurement store at {store}")
    write = export_samples if samples else export_table
    count = write(
        MeasurementStore(store),
        output,
        space=space,
        variant=variant,
        # Raw samples are for judging what was rejected, too.
        include_invalid=invalid or samples,
    )
    typer.echo(f"{output}: {count} {'measurements' if samples else 'architectures'}")


@token_app.command("add")
def add_token(
    name: Annotated[str, typer.Argument(help="Of the token.")],
    hub: NeededHub,
    token_file: NeededTokenFile,
    scope: Annotated[str, typer.Option(help="submit, measure or admin.")] = "measure",
    device: Annotated[
        str | None, typer.Option(help="Board a measuring token is for; by default its name.")
    ] = None,
    expires_days: Annotated[float | None, typer.Option(min=0, help="Lifetime.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="F", help="Write it to a file that only you can read.")
    ] = None,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
) -> None:
    """Make a token; its text is shown this once."""
    from pydantic import ValidationError

    from devices.fleet.messages import IssuedToken, TokenRequest

    if scope == "measure" and device is None:
        device = name
    try:
        request = TokenRequest(name=name, scope=scope, device=device, expires_days=expires_days)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _give(
        _link(hub, token_file, ca, cert, key)
        .ask("POST", "/api/tokens", IssuedToken, request)
        .token,
        output,
    )


@token_app.command("rotate")
def rotate_token(
    name: Annotated[str, typer.Argument(help="Of the token.")],
    hub: NeededHub,
    token_file: NeededTokenFile,
    output: Annotated[
        Path | None, typer.Option(metavar="F", help="Write it to a file that only you can read.")
    ] = None,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
) -> None:
    """Replace a token's text; the old one ends at once."""
    from devices.fleet.messages import IssuedToken

    link = _link(hub, token_file, ca, cert, key)
    _give(link.ask("POST", f"/api/tokens/{name}/rotate", IssuedToken).token, output)


@token_app.command("revoke")
def revoke_token(
    name: Annotated[str, typer.Argument(help="Of the token.")],
    hub: NeededHub,
    token_file: NeededTokenFile,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
) -> None:
    """End a token: whoever holds it is refused from now on."""
    _link(hub, token_file, ca, cert, key).tell("DELETE", f"/api/tokens/{name}")
    typer.echo(f"{name} is revoked")


@token_app.command("list")
def list_tokens(
    hub: NeededHub,
    token_file: NeededTokenFile,
    ca: Authority = None,
    cert: Certificate = None,
    key: Key = None,
) -> None:
    """Show every token ever made, without its text."""
    from datetime import datetime, timezone

    from devices.fleet.messages import Tokens

    for token in _link(hub, token_file, ca, cert, key).ask("GET", "/api/tokens", Tokens).tokens:
        until = "never expires"
        if token.expires is not None:
            day = datetime.fromtimestamp(token.expires, tz=timezone.utc)
            until = f"expires {day:%Y-%m-%d %H:%M} UTC"
        state = "revoked" if token.revoked else until
        bound = f" for {token.device}" if token.device else ""
        typer.echo(f"{token.name}: {token.scope}{bound}, {state}")


def run_agent_command(
    hub: str,
    token_file: Path,
    data: Path | None,
    config: Path | None,
    name: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> None:
    """Run the agent of this board; the body of ``nas agent``."""
    from devices.fleet.agent.run import default_folder, run_agent
    from devices.fleet.link import TlsFiles

    both_or_neither(cert, key)
    _log()
    interrupted = run_agent(
        hub,
        token_file,
        data or default_folder(),
        config=config,
        name=name,
        tls=TlsFiles(ca=ca, certificate=cert, key=key),
    )
    if interrupted:
        raise SystemExit(130)


def _log() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    # Every request of a long-lived client would be a line.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _link(
    hub: str,
    token_file: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
) -> HubLink:
    from devices.fleet.link import HubLink, TlsFiles

    if token_file is None:
        raise InputError("--hub needs --token-file")
    both_or_neither(cert, key)
    return HubLink(hub, token_file, tls=TlsFiles(ca=ca, certificate=cert, key=key))


def _give(token: str, output: Path | None) -> None:
    if output is None:
        typer.echo(token)
        return
    import os

    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(token + "\n")
    typer.echo(f"wrote {output}")


def _measured(model: Path, measurement: Measurement) -> str:
    return f"{model}: {figures(measurement)}"


def _about(about: Description) -> list[str]:
    from devices.measuring.store import fingerprint_id

    facts = ", ".join(_fact(name, value) for name, value in about.hardware.items())
    shown = about.fingerprint
    cpu = f"{shown.get('cpu', 'unknown')}, {shown.get('cores', '?')} cores"
    lines = [
        f"  hardware     {cpu}, {shown.get('architecture', '?')}",
        f"               {facts}",
        f"  fingerprint  {fingerprint_id(shown)}",
    ]
    lines += [f"  runtime      {offer.name} {offer.version}" for offer in about.runtimes]
    return lines


def _fact(name: str, value: object) -> str:
    if name.endswith("_mib") and isinstance(value, (int, float)):
        return f"{value / 1024:.1f} GiB of {name.removesuffix('_mib')}"
    if name == "max_mhz":
        return f"at most {value} MHz"
    return f"{name} {value}"


def _board_lines(view: DeviceView) -> list[str]:
    lines = [
        f"{view.name}: {view.state}, heartbeat {_age(view)}, {view.queued} queued, "
        f"{view.running} running, {view.done} done; health: {view.health}",
        *_about(view.description),
    ]
    # A board writes its own description.
    return [plain_text(line.replace("\n", " ")) for line in lines]


def _age(view: DeviceView) -> str:
    import time

    age = view.heartbeat_age_s
    if age is None:
        if view.last_heartbeat is None:
            return "never"
        age = max(0.0, time.time() - view.last_heartbeat)
    if age < 90:
        return f"{age:.0f} s ago"
    if age < 5400:
        return f"{age / 60:.0f} min ago"
    return f"{age / 3600:.0f} h ago"
