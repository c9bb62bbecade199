import errno

import pytest

from devices.fleet.agent import outbox as module
from devices.fleet.agent.outbox import Outbox
from devices.fleet.messages import Failed, Held, Result


def result(number, fence=1):
    failure = Failed(kind="infrastructure", detail="x")
    return Result(job=f"{number:032x}", fence=fence, failure=failure)


def test_results_outlive_the_process_until_they_are_delivered(tmp_path):
    box = Outbox(tmp_path)
    first, second = result(1), result(2, fence=3)
    box.put(first)
    box.put(second)
    again = Outbox(tmp_path)
    assert again.waiting() == [first, second]
    assert again.holding() == [Held(job=first.job, fence=1), Held(job=second.job, fence=3)]
    again.remove(first)
    assert Outbox(tmp_path).waiting() == [second]
    again.remove(first)  # twice is once


def test_half_written_and_foreign_files_are_removed(tmp_path):
    Outbox(tmp_path).put(result(1))
    (tmp_path / ".0.json.tmp").write_text("{")
    (tmp_path / "bad.json").write_text('{"job": 1}')
    (tmp_path / "worse.json").write_bytes(b"\xff")
    assert Outbox(tmp_path).waiting() == [result(1)]
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:032x}-1.json"]


def test_a_full_disk_keeps_the_result_in_memory(tmp_path, monkeypatch):
    box = Outbox(tmp_path)

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_text_atomic", full)
    box.put(result(1))
    assert box.waiting() == [result(1)] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fences", [(1, 2), (2, 1)])
def test_results_of_two_leases_of_a_job_are_kept_apart(tmp_path, fences):
    box = Outbox(tmp_path)
    for fence in fences:
        box.put(result(1, fence))
    box.remove(result(1, fences[0]))
    assert [held.fence for held in Outbox(tmp_path).holding()] == [fences[1]]
