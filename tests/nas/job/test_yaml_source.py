import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.job.yaml_source import MAX_BYTES, DiagnosticsError, YamlSource


def diagnostics(text: str) -> list[str]:
    with pytest.raises(DiagnosticsError) as caught:
        YamlSource("job.yaml", text)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", float("-inf")),
        ("010", 10),
        ("0x1f", 31),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("2024-01-01", "2024-01-01"),
        ("'3'", "3"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    read = YamlSource("job.yaml", f"a: {text}\n").value["a"]
    assert read == value
    assert type(read) is type(value)


def test_position_of_keys_and_values():
    source = YamlSource("job.yaml", "a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert source.position(("a",)) == (1, 4)
    assert source.position(("b",), key=True) == (2, 1)
    assert source.position(("b", 0)) == (3, 5)
    assert source.position(("b", 1, "d"), key=True) == (5, 6)
    assert source.position(("b", 1, "d")) == (5, 9)
    assert source.position(()) == (1, 1)
    # What does not exist is told at the nearest parent.
    assert source.position(("b", 1, "e")) == (4, 5)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,6}", fullmatch=True).map("k".__add__),
        st.integers(-1000, 1000),
        min_size=1,
    ),
    st.integers(0, 4),
)
def test_position_is_where_the_text_stands(mapping, blank_lines):
    text = "\n" * blank_lines + "".join(f"{k}:  {v}\n" for k, v in mapping.items())
    source = YamlSource("job.yaml", text)
    lines = text.splitlines()
    for key, value in mapping.items():
        line, column = source.position((key,))
        assert lines[line - 1][column - 1 :] == str(value)
        line, column = source.position((key,), key=True)
        assert lines[line - 1][column - 1 :].startswith(f"{key}:")


def test_every_duplicate_key_is_told():
    assert diagnostics("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "job.yaml:2:11: key 'c' is given twice (first on line 2)",
        "job.yaml:3:1: key 'a' is given twice (first on line 1)",
    ]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "job.yaml:1:1: the file is empty"),
        ("# only a comment\n", "job.yaml:1:1: the file is empty"),
        ("a:\n\tb: 1", "job.yaml:2:1: a tab is not allowed here"),
        ("a: 1\nb: [1\n", "job.yaml:3:1: expected ',' or ']'"),
        ("a: \x01", "job.yaml:1:4: character U+0001"),
        ("a: 1\n---\nb: 1\n", "job.yaml:2:1: a job is one document; move what"),
        ("a: *b\n", "job.yaml:1:4: no value above is marked &b; mark one"),
        ("a: !!python/object/apply:os.system [x]", "job.yaml:1:4: the tag"),
        ("a: !!int twelve", "job.yaml:1:4: 'twelve'"),
        ("- " * 5000 + "a", "job.yaml:1:1: the file is nested too deeply"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(text, start):
    (line,) = diagnostics(text)
    assert line.startswith(start)


def test_merge_keys_are_positioned_where_they_are_written():
    source = YamlSource("job.yaml", "x: &x {p: 1}\ny: {<<: *x, q: 2}\n")
    assert source.value["y"] == {"p": 1, "q": 2}
    assert source.position(("y", "p")) == (1, 11)


def test_files_that_cannot_be_read(tmp_path):
    for path, message in [
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "is a folder, not a file"),
    ]:
        with pytest.raises(DiagnosticsError, match=f"{path}:1:1: {message}"):
            YamlSource.read(path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(DiagnosticsError, match=r"latin.yaml:2:7: byte 0xE9 is not valid UTF-8"):
        YamlSource.read(latin)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(DiagnosticsError, match="larger than 1024 KiB"):
        YamlSource.read(large)


def test_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert YamlSource.read(path).value == {"a": 1}


def bomb(levels: int, form: str) -> str:
    lines = ["a0: &a0 {k: [x, x, x, x, x, x, x, x, x]}"]
    for i in range(1, levels):
        nine = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} " + form.format(nine))
    return "\n".join(lines)


@pytest.mark.parametrize("form", ["[{}]", "{{k: [{}]}}", "{{<<: [{}]}}"])
def test_aliases_that_stand_for_billions_of_values_are_refused_at_once(form):
    with pytest.raises(DiagnosticsError, match=r"j.yaml:\d+:\d+: aliases here stand for more"):
        YamlSource("j.yaml", bomb(30, form))
    assert YamlSource("j.yaml", bomb(3, form)).value


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {b: [1, {c: *a}]}"])
def test_a_value_that_contains_itself_is_refused(text):
    with pytest.raises(DiagnosticsError, match=r"j\.yaml:1:4: this value contains itself"):
        YamlSource("j.yaml", text)


def test_an_alias_used_twice_is_no_recursion():
    assert YamlSource("j.yaml", "a: &a [1, 2]\nb: [*a, *a]").value["b"] == [[1, 2], [1, 2]]
