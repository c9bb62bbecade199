from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.spaces.tokens import TokensSpace
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import (
    LatencyTable,
    declared_space,
    duplicate_rows,
    read_declarations,
    read_table,
    write_table,
)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_reads_back_equal(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    table = synthetic_table(architectures=30, devices=3, missing=0.2)
    table = LatencyTable(
        table.space, table.genes, table.devices, table.values, {"device1": "energy_mj"}
    )
    path = tmp_path / f"table{suffix}"
    write_table(table, path)
    again = read_table(path, TokensSpace.infer)
    assert declared_space(path) == "tokens"
    assert again.devices == table.devices
    assert again.metric("device1") == "energy_mj"
    assert again.metric("device0") == "latency_ms"
    np.testing.assert_array_equal(again.values, table.values)
    text = again.space.text
    assert [text(a) for a in again.archs] == [table.space.text(a) for a in table.archs]


def test_row_numbers_are_no_device(tmp_path: Path) -> None:
    path = _file(tmp_path, "index,arch_str,gpu\n0,a b,1.5\n1,a c,\n")
    table = read_table(path, TokensSpace.infer)
    assert table.devices == ("gpu",)
    assert np.isnan(table.column("gpu")[1])


def test_every_bad_cell_is_named_with_its_line(tmp_path: Path) -> None:
    path = _file(tmp_path, "# metric: latency_ms\narch,gpu,cpu\na,1,fast\nb,-2,inf\n")
    with pytest.raises(InputError) as caught:
        read_table(path, TokensSpace.infer)
    message = str(caught.value)
    assert "line 3: column 'cpu': 'fast' is not a number" in message
    assert "line 4: column 'gpu': '-2' is negative" in message
    assert "line 4: column 'cpu': 'inf' is not finite" in message


def test_architectures_of_another_space_are_named_with_their_line(tmp_path: Path) -> None:
    path = _file(tmp_path, "arch,gpu\n|none~0|,1\n")
    with pytest.raises(InputError, match="line 2"):
        read_table(path, NasBench201())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("arch,gpu\n", "no rows"),
        ("arch,gpu\na,1,2\n", "line 2: 3 cells"),
        ("arch;gpu\na;1;2\n", "line 2: 3 cells"),
        ("arch|gpu\na|1\n", "no architecture column"),
        ("model,gpu\na,1\n", "--arch-column"),
        ("arch,gpu,gpu\na,1,2\n", "'gpu' occurs more than once"),
        ("arch\na\n", "no device column"),
        ("arch,gpu\n ,1\n", "line 2: the architecture is empty"),
        ("# metric: volts\narch,gpu\na,1\n", "'volts'"),
        ("# metric of tpu: dsps\narch,gpu\na,1\n", "'tpu'"),
    ],
)
def test_malformed_tables_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(_file(tmp_path, text), TokensSpace.infer)


def test_a_missing_file_is_a_problem_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"nothing\.csv"):
        read_table(tmp_path / "nothing.csv", TokensSpace.infer)


def test_selecting_rows_and_columns_keeps_their_order() -> None:
    table = synthetic_table(architectures=10, devices=3)
    part = table.rows([4, 2]).select(["device2", "device0"])
    np.testing.assert_array_equal(part.values, table.values[[4, 2]][:, [2, 0]])
    with pytest.raises(InputError, match="no device 'x'"):
        table.select(["x"])


def test_repeated_architectures_are_found(tmp_path: Path) -> None:
    path = _file(tmp_path, "arch,gpu\na,1\nb,2\na,3\n")
    assert duplicate_rows(read_table(path, TokensSpace.infer)) == [(0, 2)]


def test_architectures_can_be_read_without_devices(tmp_path: Path) -> None:
    path = _file(tmp_path, "arch\na b\nb a\n")
    space = TokensSpace([["a", "b"], ["a", "b"]])
    assert read_declarations(path, space).genes.tolist() == [[0, 1], [1, 0]]


def test_known_costs_are_kept_apart_from_devices(tmp_path: Path) -> None:
    path = _file(tmp_path, "# metric of flops: macs\narch,gpu,flops,luts\na,1,10,5\nb,2,,6\n")
    table = read_table(path, TokensSpace.infer)
    assert table.devices == ("gpu", "luts") and table.metric("luts") == "luts"
    np.testing.assert_array_equal(table.costs["macs"], [10, np.nan])
    np.testing.assert_array_equal(table.select(["gpu"]).rows([1, 0]).costs["macs"], [np.nan, 10])
    write_table(table, tmp_path / "again.csv")
    again = read_table(tmp_path / "again.csv", TokensSpace.infer)
    np.testing.assert_array_equal(again.costs["macs"], table.costs["macs"])


def test_every_ragged_line_is_named(tmp_path: Path) -> None:
    path = _file(tmp_path, "arch,gpu\na,1,2\nb,1\nc\n")
    with pytest.raises(InputError, match=r"(?s)line 2: 3 cells.*line 4: 1 cells"):
        read_table(path, TokensSpace.infer)


def test_a_parquet_column_of_lists_is_one_of_tokens(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "lists.parquet"
    parquet.write_table(pyarrow.table({"arch": [[0, 3], [8, 3]], "gpu": [1.0, None]}), path)
    table = read_table(path, TokensSpace.infer)
    assert [table.space.text(arch) for arch in table.archs] == ["0 3", "8 3"]
    assert np.isnan(table.column("gpu")[1])


def test_the_row_numbers_pandas_writes_are_no_device(tmp_path: Path) -> None:
    path = _file(tmp_path, "Unnamed: 0,arch,gpu\n0,a,1\n")
    assert read_table(path, TokensSpace.infer).devices == ("gpu",)


@pytest.mark.parametrize("stands_for_missing", ["-1", "-1.0", "failed,-1"])
def test_values_that_stand_for_missing_are_no_measurements(
    tmp_path: Path, stands_for_missing: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arch,d,e\na b,-1,2\nb a,3,-1.0\n")
    with pytest.raises(InputError, match="--missing=-1"):
        read_table(path, TokensSpace.infer)
    table = read_table(path, TokensSpace.infer, missing=stands_for_missing.split(","))
    assert np.isnan(table.values).tolist() == [[True, False], [False, True]]


def test_numbers_larger_than_any_cost_are_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arch,d\na,1e201\nb,1e301\nc,1\n")
    with pytest.raises(InputError, match=r"line 2.*larger than any cost(.|\n)*line 3"):
        read_table(path, TokensSpace.infer)


def test_declarations_are_read_beside_columns_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# metric of flops: macs\narch,note,flops\na,hello,2\nb,there,\n")
    space = TokensSpace([("a", "b")])
    table = read_declarations(path, space)
    assert table.devices == () and table.genes.tolist() == [[0], [1]]
    np.testing.assert_array_equal(table.costs["macs"], [2, np.nan])
    path.write_text("arch,macs\na,none\nb,many\n")
    with pytest.raises(InputError, match="line 3: column 'macs': 'many'"):
        read_declarations(path, space)


@pytest.mark.parametrize(
    ("separator", "decimal"), [(",", "."), (";", ","), (";", "."), ("\t", ","), ("\t", ".")]
)
def test_a_table_of_any_spreadsheet_is_the_same(
    tmp_path: Path, separator: str, decimal: str
) -> None:
    rows = [["arch", "gpu", "npu"], ["a b", 1.5, 20.25], ["a c", "", "1e-1"]]
    lines = [separator.join(str(cell).replace(".", decimal) for cell in row) for row in rows]
    table = read_table(_file(tmp_path, "# space: tokens\n" + "\n".join(lines)), TokensSpace.infer)
    assert table.devices == ("gpu", "npu")
    np.testing.assert_array_equal(table.values, [[1.5, 20.25], [np.nan, 0.1]])


def test_several_columns_are_one_architecture(tmp_path: Path) -> None:
    """As tables of other projects are written: a column for each choice."""
    text = "kernel,depth,gpu,op\n3,2,1.5,max pool\n5,2,1.7,\n3,4,2.0,conv\n"
    path = _file(tmp_path, text)
    table = read_table(path, TokensSpace.infer, arch_column="kernel, depth,op")
    assert table.devices == ("gpu",)
    assert [table.space.text(arch) for arch in table.archs] == [
        "3 2 max_pool", "5 2 none", "3 4 conv",
    ]  # fmt: skip
    again = read_declarations(path, table.space, arch_column="kernel,depth,op")
    np.testing.assert_array_equal(again.genes, table.genes)
    with pytest.raises(InputError, match="no column 'width'"):
        read_table(path, TokensSpace.infer, arch_column="kernel,width")
    with pytest.raises(InputError, match="all columns that describe an architecture"):
        read_table(path, TokensSpace.infer)


def test_a_header_with_commas_is_one_column(tmp_path: Path) -> None:
    path = _file(tmp_path, '"kernel,depth",gpu\n3 2,1.5\n')
    assert len(read_table(path, TokensSpace.infer, arch_column="kernel,depth")) == 1


def test_columns_of_words_are_told_once_and_left_out_on_request(tmp_path: Path) -> None:
    """As of tables of other projects, which hold remarks beside the figures."""
    text = "# metric of board: energy_mj\narch,phone,board,remark,macs\n"
    text += "a b,1.5,2,fine,10\na c,2.5,3,slow: see log,20\n"
    path = _file(tmp_path, text)
    with pytest.raises(InputError) as told:
        read_table(path, TokensSpace.infer)
    assert str(told.value).count("remark") == 1 and "in 2 rows (such as 'fine')" in str(told.value)
    table = read_table(path, TokensSpace.infer, only=lambda header: header[1:2])
    assert table.devices == ("phone",) and table.column("phone").tolist() == [1.5, 2.5]
    np.testing.assert_array_equal(table.costs["macs"], [10, 20])
    with pytest.raises(InputError, match="no column 'phon'"):
        read_table(path, TokensSpace.infer, only=lambda header: ["phon"])
    # One word among numbers is a mistake of its line.
    path = _file(tmp_path, "arch,phone,board\na b,x,1\na c,2,3\n")
    with pytest.raises(InputError, match="line 2: column 'phone': 'x' is not a number"):
        read_table(path, TokensSpace.infer)
