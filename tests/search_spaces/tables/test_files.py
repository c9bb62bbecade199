"""Table files from elsewhere: what is too large or cannot be read is refused, in bounded memory."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from search_spaces.tables import files
from search_spaces.tables.files import read_raw


def test_a_field_longer_than_the_reader_takes_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('# unit: ms\narch,d\na,1\n"' + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"t.csv: line \d+: field larger than"):
        read_raw(path)
    path.write_text("x" * 200_000 + ",d\n")
    with pytest.raises(InputError, match=r"t.csv: line 1: field larger"):
        read_raw(path)


def test_a_file_larger_than_a_table_is_refused_unread(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "t.csv"
    with open(path, "wb") as file:
        file.truncate(files.MAX_BYTES + 1)
    with pytest.raises(InputError, match="larger than"):
        read_raw(path)


@pytest.mark.slow
def test_parquet_that_inflates_is_refused_in_little_memory(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # A constant column takes no room in the file, whatever its length.
    tall = tmp_path / "tall.parquet"
    column = pyarrow.repeat(1.0, files.MAX_CELLS // 4)
    with parquet.ParquetWriter(tall, pyarrow.schema([("d", "float64")])) as writer:
        for _ in range(5):
            writer.write_table(pyarrow.table({"d": column}))
    assert tall.stat().st_size < 10**6
    with pytest.raises(InputError, match="more than a table may have"):
        read_raw(tall)
    long = tmp_path / "long.parquet"
    parquet.write_table(pyarrow.table({"arch": ["x" * (files.MAX_CELL + 1)], "d": [1.0]}), long)
    with pytest.raises(InputError, match=r"column 'arch' has a cell of 100001 characters"):
        read_raw(long)
    many = tmp_path / "many.parquet"
    text = pyarrow.repeat(pyarrow.scalar("y" * files.MAX_CELL), 1).dictionary_encode()
    indices = pyarrow.repeat(pyarrow.scalar(0, "int32"), 2**30 // files.MAX_CELL + 1)
    repeated = pyarrow.DictionaryArray.from_arrays(indices, text.dictionary)
    parquet.write_table(pyarrow.table({"arch": repeated}), many)
    assert many.stat().st_size < 10**6
    with pytest.raises(InputError, match="texts of"):
        read_raw(many)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 800_000  # KiB; the texts alone would be 1 GiB


def test_texts_and_gaps_of_a_parquet_file_come_back(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"arch": ["a", "b", "a"], "d": [1.5, None, 2.0]}), path)
    raw = read_raw(path)
    assert raw.rows == [["a", "1.5"], ["b", ""], ["a", "2.0"]] and raw.header == ["arch", "d"]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("decimal, thousands", [(",", "."), (".", ",")])
def test_thousands_are_not_taken_for_fractions(
    tmp_path: Path, separator: str, decimal: str, thousands: str
) -> None:
    """Each would be read, a thousand times too small."""
    path = tmp_path / "t.csv"
    rows = ["arch;fast;slow", "a b;12.5;1|234", "a c;9.5;980"]
    text = "\r\n".join(rows).replace(";", separator)
    path.write_text(text.replace(".", decimal).replace("|", thousands))
    with pytest.raises(InputError, match=rf"line 2: '1\{thousands}234' is 1234 or 1\.234.*12"):
        read_raw(path)


def test_numbers_of_both_marks_that_can_mean_one_thing_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arch;fast;slow\na b;12,5;0.123\na c;9,5;980.25\n")
    assert len(read_raw(path).rows) == 2
    path.write_text("arch;fast;slow\na b;12;1.234\na c;9;2.345\n")  # one mark throughout
    assert len(read_raw(path).rows) == 2
