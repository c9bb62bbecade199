"""Linear layers of weights alone against ggml and ONNX Runtime: decode (one row) and prefill.

    python -m experiments.kernels.linear [--ggml FOLDER] [--instructions native|avx512|avx2]
        [--rounds 25] [--decode]

One thread, float32 in and out, all contenders in turn in one process, timed by the thread's own
processor time, which other programs' turns do not enter; a ratio is the median over rounds of the
ratio within a round. Every peer's result is compared with the exact product first. With ``avx2``
or ``avx512`` our side uses no more than that while peers use all there is, unless a ggml compiled
for AVX2 is given.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from devices.lowbit.library import Native, restrict
from devices.measuring.conditions import has_dot_products
from experiments.kernels import peers
from experiments.kernels.bench import RESULTS, machine
from search_spaces.atomic import write_json_atomic
from search_spaces.model_files.grouped import pack_grouped

GROUP = 128
CASES = (  # key, rows, channels, outputs, layers
    ("1mib", 1, 1024, 4096, 1),
    ("4mib", 1, 4096, 4096, 1),
    ("48mib", 1, 4096, 4096, 12),
    ("rows128", 128, 2048, 2048, 1),
)
TOLERANCE = 0.05
"""Largest difference to the exact product, as a share of its root mean square."""

Run = Callable[[], object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ggml", type=Path, help="folder of libggml-base and libggml-cpu")
    parser.add_argument("--instructions", choices=("native", "avx512", "avx2"), default="native")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--decode", action="store_true", help="the cases of one row alone")
    options = parser.parse_args()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-1:]))
    restrict("" if options.instructions == "native" else options.instructions)
    missing: dict[str, str] = {}
    try:
        ggml: peers.Ggml | None = peers.Ggml(1, options.ggml)
    except peers.PeerMissing as error:
        ggml, missing["ggml"] = None, str(error)
    rows = [
        _case(*case, ggml, missing, options.rounds)
        for case in CASES
        if case[1] == 1 or not options.decode
    ]
    command = (
        f"python -m experiments.kernels.linear --instructions {options.instructions}"
        + " --ggml FOLDER" * bool(options.ggml)
        + " --decode" * options.decode
    )
    document = {
        "machine": machine(),
        "instructions": options.instructions,
        "group": GROUP,
        "rounds": options.rounds,
        "clock": "processor time of the thread",
        "command": command,
        "missing": missing,
        "cases": rows,
    }
    name = f"linear_{options.instructions}_{'decode' if options.decode else 1}.json"
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json_atomic(RESULTS / name, document)
    file = f"experiments/results/kernels/{name}"
    if options.instructions == "native":
        _claims(rows, file, command)
    elif options.instructions == "avx2" and not has_dot_products():  # both sides have AVX2 alone
        _claim_rows(rows, "lowbit.rows128_avx2_vs_int8", file, command)
    return 0


def _case(
    key: str,
    rows: int,
    channels: int,
    outputs: int,
    layers: int,
    ggml: peers.Ggml | None,
    missing: dict[str, str],
    rounds: int,
) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (rows, channels)).astype(np.float32)
    scale = np.float32(2**-6)
    groups = channels // GROUP
    runs: dict[str, Run] = {}
    errors: dict[str, float] = {}

    def add(
        name: str, make: Callable[[], tuple[Run, Callable[[], np.ndarray]]], exact: Any
    ) -> None:
        try:
            run, read = make()
            run()
        except (peers.PeerMissing, RuntimeError) as error:
            missing[name] = str(error)[:200]
            return
        size = float(np.sqrt(np.mean(np.square(exact))))
        errors[name] = float(np.abs(read() - exact).max()) / size
        if errors[name] > TOLERANCE:
            missing[f"{name} {key}"] = f"differs from the exact product by {errors[name]:.3f}"
            return
        runs[name] = run

    for bits in (2, 4):
        zero = 2 ** (bits - 1)
        # Ternary codes, so that TQ2_0 holds them; blocks of 32 that reach -8, so that Q4_0 does.
        low, high = (1, 3) if bits == 2 else (0, 15)
        codes = [
            rng.integers(low, high + 1, (outputs, channels)).astype(np.uint8) for _ in range(layers)
        ]
        if bits == 4:
            for one in codes:
                one[:, ::32] = 0
        else:
            for one in codes:
                one[:, ::256] = 3
        scales = [np.full((outputs, groups), scale) for _ in range(layers)]
        floats = [(one.astype(np.float32) - zero) * scale for one in codes]
        exact = x.astype(np.float64) @ floats[-1].T.astype(np.float64)
        add(f"w{bits}", lambda b=bits, c=codes, s=scales, z=zero: _own(c, s, x, b, z), exact)
        for tables in (False, True) if bits == 2 else (False,):
            add(
                f"ort{bits}" + "_lut" * tables,
                lambda b=bits, c=codes, s=scales, t=tables: peers.nbits_products(
                    c, s, x, bits=b, group=GROUP, tables=t
                ),
                exact,
            )
        if ggml is not None:
            for kind, repack in (
                (("tq2_0", False),) if bits == 2 else (("q4_0", False), ("q4_0", True))
            ):
                add(
                    f"ggml_{kind}" + "_repacked" * repack,
                    lambda k=kind, f=floats, r=repack: ggml.products(k, f, x, repack=r),
                    exact,
                )
    if rows > 1:
        runs["ort_int8"] = _int8(rows, channels, outputs)
    times = interleave(runs, rounds if layers == 1 else max(8, rounds // 2))
    medians = {name: float(np.median(t)) for name, t in times.items()}
    own = {"w2": [n for n in runs if n in ("ort2", "ort2_lut", "ggml_tq2_0", "ort_int8")]}
    own["w4"] = [n for n in runs if n.startswith(("ort4", "ggml_q4_0")) or n == "ort_int8"]
    ratios = {
        mine: {name: round(float(np.median(times[name] / times[mine])), 3) for name in names}
        for mine, names in own.items()
        if mine in times
    }
    row = {
        "case": key,
        "rows": rows,
        "channels": channels,
        "outputs": outputs,
        "layers": layers,
        "ms": {name: round(value, 4) for name, value in medians.items()},
        "largest_difference": {name: round(value, 4) for name, value in errors.items()},
        "peer_over_ours": ratios,
        "w4_over_w2": round(float(np.median(times["w4"] / times["w2"])), 3),
        "load_average": [round(v, 1) for v in os.getloadavg()],
    }
    print(key, row["ms"], ratios, row["w4_over_w2"], flush=True)
    return row


def _own(
    codes: list[np.ndarray], scales: list[np.ndarray], x: np.ndarray, bits: int, zero: int
) -> tuple[Run, Callable[[], np.ndarray]]:
    net = Native(1)
    source = net.buffer(x.nbytes)
    for fields, scale in zip(codes, scales, strict=True):
        target = net.buffer(4 * len(x) * len(fields))
        weights = pack_grouped(fields, scale, bits=bits, group=GROUP, zero=zero)
        net.linear(source, target, len(x), weights)
    net.array(source, x.shape, np.float32)[...] = x
    shape = (len(x), len(codes[-1]))
    return net.runner(), lambda: net.array(target, shape, np.float32)


def _int8(rows: int, channels: int, outputs: int) -> Run:
    from experiments.kernels.contenders import Shape, onnx_run

    return onnx_run(Shape("rows", rows, channels, outputs), "int8", 1)


def interleave(runs: Mapping[str, Run], rounds: int) -> dict[str, np.ndarray]:
    """Time all contenders in turn by the thread's processor time; ms, (rounds,) each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    clock = time.thread_time_ns
    for turn in range(-2, rounds):
        for name, run in runs.items():
            run()  # brings this contender's data near after the others ran
            start = clock()
            run()
            took = clock() - start
            if turn >= 0:
                times[name].append(took * 1e-6)
    return {name: np.array(values) for name, values in times.items()}


def _claims(rows: list[dict[str, Any]], file: str, command: str) -> None:
    from experiments.results_index import record_claim

    def record(key: str, value: float | None) -> None:
        told = "peer not reached" if value is None else value
        record_claim(key, told, 1.0, value is not None and value >= 1.0, file, command)

    _claim_rows(rows, "lowbit.rows128_vs_int8", file, command)
    for row in rows:
        if row["rows"] > 1:
            continue
        two = row["peer_over_ours"]["w2"]
        record(f"lowbit.decode_vs_ggml_{row['case']}", two.get("ggml_tq2_0"))
        # With the option that asks for tables, or without it: whichever is faster.
        of_ort = [two[name] for name in ("ort2", "ort2_lut") if name in two]
        record(f"lowbit.decode_vs_ort_lut_{row['case']}", min(of_ort, default=None))
    decode = [row for row in rows if row["rows"] == 1]
    record(
        "lowbit.w4a8_decode",
        min(min(row["peer_over_ours"]["w4"].values()) for row in decode),
    )


def _claim_rows(rows: list[dict[str, Any]], key: str, file: str, command: str) -> None:
    from experiments.results_index import record_claim

    for row in rows:
        if row["rows"] > 1:
            ratio = row["peer_over_ours"]["w2"]["ort_int8"]
            record_claim(key, ratio, 1.0, ratio >= 1.0, file, command)


if __name__ == "__main__":
    sys.exit(main())
