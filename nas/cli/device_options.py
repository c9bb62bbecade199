"""Options that commands about devices share, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from devices.device import Device
    from devices.measuring.measurement import Measurement
    from devices.measuring.protocol import Protocol

Hub = Annotated[str | None, typer.Option("--hub", metavar="URL", help="A hub's address.")]
NeededHub = Annotated[str, typer.Option("--hub", metavar="URL", help="The hub's address.")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", metavar="F", help="File with a token for the hub.")
]
NeededTokenFile = Annotated[
    Path, typer.Option("--token-file", metavar="F", help="File with a token for the hub.")
]
Authority = Annotated[
    Path | None,
    typer.Option("--ca", metavar="PEM", help="Authority that signed the hub's certificate."),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--cert", metavar="PEM", help="Certificate to show to a hub that wants one."),
]
Key = Annotated[Path | None, typer.Option("--key", metavar="PEM", help="The certificate's key.")]
Board = Annotated[str | None, typer.Option("--device", metavar="NAME", help="Board at the hub.")]
RuntimeName = Annotated[str, typer.Option(help="Registered name of the runtime.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of one inference.")]
Batch = Annotated[int, typer.Option(min=1, help="Images in one inference.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="A parameter of the runtime; repeatable."),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--argument", metavar="KEY=VALUE", help="For what makes the network; repeatable."),
]
NormalisationOption = Annotated[
    str | None,
    typer.Option(
        "--normalisation",
        metavar="imagenet|data|MEANS/DEVIATIONS",
        help="What the network was trained with; known of torchvision's and timm's, otherwise "
        "that of the data.",
    ),
]
Processes = Annotated[int | None, typer.Option(min=2, help="Processes a model.")]
Runs = Annotated[int | None, typer.Option(min=2, help="Samples a process.")]
ProtocolOptions = Annotated[
    list[str] | None,
    typer.Option("--protocol", metavar="KEY=VALUE", help="Of the protocol; repeatable."),
]
Store = Annotated[
    Path | None, typer.Option(metavar="DB", help="Measurement store to look in and keep to.")
]
BoardRuntime = Annotated[
    str, typer.Option(help="With --hub: registered name of the board's runtime.")
]
Again = Annotated[bool, typer.Option("--again", help="Measure anew what is known only as invalid.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def chosen_device(
    runtime: str,
    threads: int,
    batch: int,
    options: Mapping[str, Any],
    hub: str | None,
    token_file: Path | None,
    board: str | None,
    ca: Path | None,
    again: bool,
    cert: Path | None,
    key: Path | None,
) -> Device:
    """Return the runtime of this machine, or of a board at a hub, that options name.

    Raises:
        InputError: the options contradict each other, or name what is not there.
    """
    from devices.device import BoardAddress, DeviceSpec
    from devices.fleet.remote import make_device

    address = None
    if hub is not None:
        if token_file is None or board is None:
            raise InputError("--hub needs --token-file and --device")
        both_or_neither(cert, key)
        address = BoardAddress(hub, token_file, board, ca, cert, key)
    elif board is not None:
        raise InputError("--device names a board at a hub; give --hub and --token-file too")
    spec = DeviceSpec(board or "here", runtime, threads, batch, dict(options), address)
    return make_device(spec, remeasure_invalid=again)


def chosen_protocol(
    options: Sequence[str] | None, processes: int | None, runs: int | None
) -> Protocol:
    """Return the protocol that options name.

    Raises:
        InputError: a text that is not of the form ``KEY=VALUE``, or a value that cannot be.
    """
    from devices.measuring.protocol import Protocol

    settings = key_values(options, "--protocol")
    settings |= {k: v for k, v in (("processes", processes), ("runs", runs)) if v is not None}
    return Protocol.from_json(settings)


def key_values(texts: Sequence[str] | None, option: str) -> dict[str, Any]:
    """Return the values of repeated ``KEY=VALUE`` texts of ``option``, read as YAML.

    Raises:
        InputError: a text is not of that form.
    """
    import yaml

    values = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"{option} {text!r} is not of the form KEY=VALUE")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(f"{option} {text!r}: the value cannot be read") from None
    return values


def whole_numbers(text: str, option: str) -> list[int]:
    """Return the whole numbers of ``text``, which commas divide, given as ``option``.

    Raises:
        InputError: a part is no whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text!r} must be whole numbers with commas") from None


def both_or_neither(cert: Path | None, key: Path | None) -> None:
    """Raise an InputError when one of a certificate and its key is missing."""
    if (cert is None) != (key is None):
        raise InputError("--cert and --key belong together")


def figures(measurement: Measurement) -> str:
    """Return a measurement in a line: latency, interval, runtime, and why it is invalid."""
    if measurement.latency_ms != measurement.latency_ms:
        return f"NOT MEASURED ({', '.join(measurement.reasons)}): {measurement.detail}"
    flag = "; fastest samples of a busy machine" if measurement.busy else ""
    flag += "" if measurement.valid else f"  INVALID ({', '.join(measurement.reasons)})"
    return (
        f"{measurement.latency_ms:.4g} ms measured, 95 % interval {measurement.low_ms:.4g} to "
        f"{measurement.high_ms:.4g} ms, {measurement.runtime} {measurement.runtime_version}{flag}"
    )
