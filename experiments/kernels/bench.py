"""The low-bit kernels against ONNX Runtime on layers of MobileNet and ResNet-18.

    python -m experiments.kernels.bench --instructions avx2 --threads 1
    python -m experiments.kernels.bench --instructions native --threads 2

``avx2`` hides AVX-512 and VNNI from both sides, for which the speed targets hold; ``native`` lets
both use all the processor has. All contenders run in turn in one process, pinned; the cost of
calling each library, from a layer of eight numbers, is subtracted from its times. A speedup is the
median over the rounds of the ratio within a round, so that a clock that changes during the run, as
on a shared machine, does not part the two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from search_spaces.atomic import write_json_atomic

RESULTS = Path(__file__).parents[1] / "results" / "kernels"
PAIRS = ((1, 4), (1, 5), (1, 8), (2, 4), (2, 5), (2, 8), (4, 4), (4, 8))
TARGETS = {"w2a4": 1.8, "w2a8": 1.15, "w1a8": 1.6, "w1a4": 2.5}


def timing_options(description: str | None) -> argparse.Namespace:
    """Parse the options of a comparison, then pin the process and hide what they hide.

    Call it before onnxruntime is imported.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--instructions", choices=("avx2", "native"), default="avx2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    if options.instructions == "avx2":
        from experiments.kernels.cpu_mask import hide_avx512

        hide_avx512()
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: options.threads]))
    return options


def main() -> int:
    options = timing_options(__doc__)
    from experiments.kernels import contenders

    dispatch = _dispatch(contenders, options)
    rows = []
    for shape in contenders.SHAPES:
        row = _shape(contenders, shape, options, dispatch)
        rows.append(row)
        print(shape.name, row["speedup"], flush=True)
    name = f"layers_{options.instructions}_{options.threads}.json"
    summary = summarise(rows)
    command = (
        f"python -m experiments.kernels.bench --instructions {options.instructions} "
        f"--threads {options.threads}"
    )
    document = {
        "machine": machine(),
        "instructions": options.instructions,
        "threads": options.threads,
        "rounds": options.rounds,
        "dispatch_ms": dispatch,
        "command": command,
        "summary": summary,
        "layers": rows,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json_atomic(RESULTS / name, document)
    print(json.dumps(summary, indent=1))
    if options.instructions == "avx2" and options.threads == 1:
        _claims(summary, f"experiments/results/kernels/{name}", command)
    return 0


def _dispatch(contenders: Any, options: argparse.Namespace) -> dict[str, float]:
    import numpy as np

    tiny = contenders.Shape("tiny", 1, 8, 8)
    runs = {k: contenders.onnx_run(tiny, k, options.threads) for k in ("int8", "float")}
    runs["lowbit"] = contenders.LowBit(tiny, 2, 4, options.threads).run
    times = contenders.interleave(runs, 300)
    return {k: round(float(np.median(v)), 6) for k, v in times.items()}


def _shape(contenders: Any, shape: Any, options: argparse.Namespace, dispatch: dict) -> dict:
    import numpy as np

    mine = {f"w{w}a{a}": contenders.LowBit(shape, w, a, options.threads) for w, a in PAIRS}
    runs = {k: contenders.onnx_run(shape, k, options.threads) for k in ("int8", "float")}
    times = contenders.interleave(runs | {k: m.run for k, m in mine.items()}, options.rounds)

    own = {k: v - dispatch.get(k, dispatch["lowbit"]) for k, v in times.items()}
    quarters = (25, 50, 75)
    ms = {k: [round(float(q), 5) for q in np.percentile(v, quarters)] for k, v in own.items()}

    def speedup(over: str, name: str) -> float:
        return round(float(np.median(own[over] / own[name])), 3)

    return {
        "layer": shape.name,
        "multiplications": shape.multiplications,
        "ms_quartiles": ms,
        "kernel": {k: m.kernel for k, m in mine.items()},
        "int8_multiply_ms": {
            k: min((t for n, t in m.times.items() if n.startswith("multiply")), default=None)
            for k, m in mine.items()
        },
        "speedup": {k: speedup("int8", k) for k in mine},
        "speedup_over_float": {k: speedup("float", k) for k in mine},
    }


def summarise(rows: list[dict]) -> dict[str, Any]:
    """Return medians over the layers, the worst layer, and the layers slower than float."""
    import numpy as np

    names = list(rows[0]["speedup"])
    few = [n for n in names if n in TARGETS]
    worst = min((row["speedup"][n], row["layer"], n) for row in rows for n in few)
    slower = [
        [row["layer"], n, row["speedup_over_float"][n]]
        for row in rows
        for n in few
        if row["speedup_over_float"][n] < 1
    ]
    return {
        "median_speedup": {
            n: round(float(np.median([row["speedup"][n] for row in rows])), 3) for n in names
        },
        "median_speedup_over_float": {
            n: round(float(np.median([row["speedup_over_float"][n] for row in rows])), 3)
            for n in names
        },
        "worst": list(worst),
        "slower_than_float": slower,
    }


def machine() -> dict[str, Any]:
    """Return the processor and the versions."""
    import numpy
    import onnxruntime

    from devices.lowbit.library import features

    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
    return {
        "processor": model,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "kernels": list(features()),
        "load_average": [round(v, 1) for v in os.getloadavg()],
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _claims(summary: dict[str, Any], file: str, command: str) -> None:
    from experiments.results_index import record_claim

    for name, target in TARGETS.items():
        value = summary["median_speedup"][name]
        record_claim(f"kernel.{name}_median_speedup", value, target, value >= target, file, command)
    worst = summary["worst"][0]
    record_claim("kernel.worst_after_choice", summary["worst"], 0.95, worst >= 0.95, file, command)
    slower = summary["slower_than_float"]
    record_claim("kernel.faster_than_float", slower or True, True, not slower, file, command)


if __name__ == "__main__":
    sys.exit(main())
