"""Arm Ethos-U accelerators as Arm's compiler Vela estimates them."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from devices.device import Device, DeviceSpec, Done
from devices.measuring.protocol import Protocol
from devices.measuring.store import Query
from devices.runtime import existing_file, make_runtime
from devices.simulators.estimates import estimated_measurement
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

#: Accelerator -> sizes (multiply-accumulate units), system and memory that Arm describes for it.
FAMILIES: dict[str, tuple[tuple[int, ...], str, str]] = {
    "ethos-u55": ((32, 64, 128, 256), "Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ((256, 512), "Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85": (
        (128, 256, 512, 1024, 2048), "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB",
    ),
}  # fmt: skip

_LIMIT_S = 300


def accelerators() -> list[str]:
    """Return the names of what Vela compiles for."""
    return [f"{name}-{size}" for name, (sizes, *_) in FAMILIES.items() for size in sizes]


class VelaDevice(Device):
    """Compiles each model file for an Ethos-U and reports the latency that Vela expects.

    Quantised ONNX files go through the conversion of the runtime ``litert``; ``.tflite`` files
    are taken as they are. Operators that the accelerator lacks are left to a processor that
    Vela does not time: their number is in ``conditions``, and a doubt names them.

    Args:
        name: what the device is called.
        accelerator: one of :func:`accelerators`.
        batch: images at a time.
        system_config, memory_mode: names of Vela's own configuration for clock, memories and
            their bandwidths; by default what Arm describes for the family.

    Raises:
        InputError: an unknown accelerator.
    """

    def __init__(
        self,
        name: str,
        accelerator: str,
        *,
        batch: int = 1,
        system_config: str | None = None,
        memory_mode: str | None = None,
    ) -> None:
        if accelerator not in accelerators():
            raise InputError(
                f"unknown accelerator {accelerator!r} (Vela knows {', '.join(accelerators())})"
            )
        _, system, memory = FAMILIES[accelerator.rpartition("-")[0]]
        self.settings = {
            "accelerator": accelerator,
            "system_config": system_config or system,
            "memory_mode": memory_mode or memory,
        }
        super().__init__(DeviceSpec(name, runtime="vela", batch=batch, options=self.settings))

    @property
    def version(self) -> str:
        """Vela's version.

        Raises:
            MissingExtraError: it is not installed.
        """
        try:
            return version("ethos-u-vela")
        except PackageNotFoundError as error:
            raise MissingExtraError("ethos-u-vela", "vela") from error

    def check(self) -> None:
        """See :meth:`Device.check`: looks for Vela and its version."""
        self._converter()
        assert self.version

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings and the version of the conversion: what decides the estimates."""
        return {**self.settings, "converter": self._converter().version}

    def _converter(self) -> Any:
        return make_runtime("litert", {"batch": self.spec.batch, "integers_only": True})

    def _identify(self) -> dict[str, Any]:
        runtime = {"name": "vela", "version": self.version, "parameters": self.spec.parameters}
        return {"runtime": runtime, "fingerprint": self.fingerprint()}

    def _measure(self, queries: Sequence[Query], protocol: Protocol, done: Done) -> None:
        for query in queries:
            summary = self.estimate(query.model)
            done(
                query.key,
                estimated_measurement(
                    summary["latency_ms"],
                    runtime="vela",
                    version=self.version,
                    parameters=self.spec.parameters,
                    protocol=protocol,
                    details={**summary, **self.fingerprint()},
                ),
            )

    def estimate(self, path: Path) -> dict[str, Any]:
        """Return what Vela says of a model file.

        Returns:
            ``latency_ms``, ``cycles``, ``memory_kib``, ``flash_kib``, ``npu_operators``,
            ``cpu_operators``, and ``doubts`` that name operators the accelerator does not run.

        Raises:
            InputError: the file cannot be converted or compiled, or nothing of it would run on
                the accelerator.
            EnvironmentProblem: Vela cannot be started.
        """
        path = existing_file(path)
        converter = self._converter()
        source = path
        if path.suffix.lower() != ".tflite":
            source = converter.converted(path) / converter.native
        assert self.version
        with tempfile.TemporaryDirectory(prefix="vela-") as folder:
            text = self._compile(source, Path(folder), path)
            (report,) = Path(folder).glob("*_summary_*.csv")
            with open(report, encoding="utf-8", newline="") as file:
                row = next(csv.DictReader(file))
        return _summary(text, row, path)

    def _compile(self, source: Path, folder: Path, path: Path) -> str:
        settings = self.settings
        command = [sys.executable, "-m", "ethosu.vela", str(source.absolute())]
        command += ["--accelerator-config", settings["accelerator"]]
        command += ["--config", "Arm/vela.ini", "--output-dir", str(folder)]
        command += ["--system-config", settings["system_config"]]
        command += ["--memory-mode", settings["memory_mode"]]
        try:
            ran = subprocess.run(
                command, cwd=folder, capture_output=True, timeout=_LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{path}: Vela did not finish within {_LIMIT_S} s") from error
        except OSError as error:
            raise EnvironmentProblem(f"cannot start Vela: {error.strerror}") from error
        text = (ran.stdout + ran.stderr).decode("utf-8", errors="replace")
        if ran.returncode:
            raise InputError(f"{path}: Vela cannot compile it: {text.strip()[-300:]}")
        return text


def _summary(text: str, row: Mapping[str, str], path: Path) -> dict[str, Any]:
    counts = {
        kind: int(found[1]) if (found := re.search(rf"{kind} operators = (\d+)", text)) else 0
        for kind in ("NPU", "CPU")
    }
    if not counts["NPU"]:
        raise InputError(
            f"{path}: nothing of it runs on the accelerator, which takes int8 models; export it "
            f"quantised"
        )
    # The float edges of a quantised network: the application does these, or leaves them out.
    left = re.findall(r"operator: (\w+)", text)
    inside = sorted({name for name in left if name not in ("QUANTIZE", "DEQUANTIZE")})
    doubts = []
    if inside:
        doubts.append(
            f"{', '.join(inside)} would run on a processor, whose time is not in the estimate"
        )
    memory = sum(float(row[f"{kind}_memory_used"]) for kind in ("sram", "dram"))
    flash = sum(float(row[f"{kind}_flash_memory_used"]) for kind in ("on_chip", "off_chip"))
    return {
        "latency_ms": float(row["inference_time"]) * 1e3,
        "cycles": int(float(row["cycles_total"])),
        "memory_kib": memory,
        "flash_kib": flash,
        "npu_operators": counts["NPU"],
        "cpu_operators": counts["CPU"],
        "doubts": doubts,
    }
