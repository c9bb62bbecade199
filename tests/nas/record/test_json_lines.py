from __future__ import annotations

from nas.record.json_lines import append_line, read_lines


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "records.jsonl"
    assert list(read_lines(path)) == []
    records = [{"key": "a", "value": 1.5}, {"key": "é", "value": None}]
    for record in records:
        append_line(path, record)
    assert list(read_lines(path)) == records
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_line_is_left_out_and_swallows_nothing(tmp_path):
    path = tmp_path / "records.jsonl"
    append_line(path, {"key": "a"})
    append_line(path, {"key": "torn"})
    path.write_bytes(path.read_bytes()[:-5])
    append_line(path, {"key": "b"})
    assert list(read_lines(path)) == [{"key": "a"}, {"key": "b"}]


def test_undefined_numbers_are_null_so_that_every_reader_reads_the_line(tmp_path):
    path = tmp_path / "records.jsonl"
    append_line(path, {"accuracy": float("nan"), "classes": [float("inf"), 1.0]})
    assert list(read_lines(path)) == [{"accuracy": None, "classes": [None, 1.0]}]
    assert b"NaN" not in path.read_bytes() and b"Infinity" not in path.read_bytes()
