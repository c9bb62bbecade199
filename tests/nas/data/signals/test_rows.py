import numpy as np
import pytest

from nas.data.signals.rows import recorded, signal_csv
from nas.job.sections.data import DataConfig
from search_spaces.errors import InputError


def config(name, folder, **rest):
    return DataConfig(name=name, path=str(folder), **rest)


def test_a_row_of_a_csv_file_is_a_signal(tmp_path):
    rows = ["a0,a1,b0,b1,label,patient"]
    rows += [f"{i},1,2,3,{'up' if i % 2 else 'down'},{i // 4}" for i in range(16)]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    raw = signal_csv(config("signal_csv", tmp_path), channels=2, group="patient", leave_out=[])
    assert raw.train.images.shape == (16, 2, 1, 2) and raw.classes == ("down", "up")
    assert raw.train.images[3, :, 0].tolist() == [[3, 1], [2, 3]]
    assert raw.groups.tolist() == [i // 4 for i in range(16)]


def test_mistakes_of_a_csv_file_are_told_with_line_and_column(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("t0,t1,label\n1,2,a\n1,,b\nx,2,a\n1,inf,b\n")
    with pytest.raises(InputError) as error:
        signal_csv(config("signal_csv", tmp_path))
    for line, words in ((3, "t1: a value is missing"), (4, "'x' is no number"), (5, "t1 is inf")):
        assert f"{path}:{line}: column" in str(error.value) and words in str(error.value)
    path.write_text("t0,t1,label\n1,2\n")
    with pytest.raises(InputError, match=r"train.csv:2: 2 cells.*names 3"):
        signal_csv(config("signal_csv", tmp_path))
    path.write_text("t0,t1,label\n1,2\n1,nan,b\n1,2,a\n")
    with pytest.raises(InputError) as error:
        signal_csv(config("signal_csv", tmp_path))
    assert "train.csv:2: 2 cells" in str(error.value) and "csv:3: column t1" in str(error.value)
    path.write_text("t0,t1,what\n1,2,a\n")
    with pytest.raises(InputError, match=r"data.options.targets"):
        signal_csv(config("signal_csv", tmp_path))


def test_recordings_are_cut_into_windows_that_stay_together(tmp_path):
    (tmp_path / "train").mkdir()
    for k in range(6):
        rows = ["x,y,label"] + [f"{i},{k},{'abc'[k % 3]}" for i in range(20)]
        (tmp_path / "train" / f"{k}.csv").write_text("\n".join(rows))
    raw = signal_csv(config("signal_csv", tmp_path), window=8, hop=4, leave_out=[])
    assert raw.train.images.shape == (6 * 4, 2, 1, 8)
    assert raw.train.images[1, 0, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert raw.groups.tolist() == [k for k in range(6) for _ in range(4)]
    numbers = tmp_path / "numbers" / "train"
    numbers.mkdir(parents=True)
    (numbers / "0.csv").write_text("x,level\n" + "\n".join(f"{i},{i}" for i in range(12)))
    raw = signal_csv(
        config("signal_csv", numbers.parent), window=4, hop=4, targets=["level"], kind="values"
    )
    assert raw.train.labels.tolist() == [[1.5], [5.5], [9.5]] and raw.groups is None


SIGNALS = [[0.5, -1.25, 2.0], [1.5, 0.0, 3.0], [0.25, 4.0, 5.0], [1.0, 2.0, 9.0]]


def written(folder, rows, separator=",", decimal=".", ending="\n"):
    lines = [separator.join(str(cell).replace(".", decimal) for cell in row) for row in rows]
    (folder / "train.csv").write_bytes((ending.join(lines) + ending).encode("utf-8-sig"))


@pytest.mark.parametrize(
    "separator, decimal", [(",", "."), (";", ","), (";", "."), ("\t", ","), ("\t", ".")]
)
@pytest.mark.parametrize("spaces", ["", " "])
def test_any_spreadsheet_of_the_same_numbers_is_the_same_data(tmp_path, separator, decimal, spaces):
    rows = [[f"{spaces}{v}" for v in signal] + [spaces + "ab"[i % 2]]
            for i, signal in enumerate(SIGNALS)]  # fmt: skip
    written(tmp_path, [["t0", "t1", "t2", "label"], *rows], separator, decimal, "\r\n")
    raw = signal_csv(config("signal_csv", tmp_path))
    assert raw.train.images[:, 0, 0].tolist() == SIGNALS and raw.classes == ("a", "b")


def test_a_decimal_comma_needs_another_separator(tmp_path):
    (tmp_path / "train.csv").write_text('t0,t1,label\n"1,5",2,a\n')
    with pytest.raises(InputError, match="'1,5' is no number"):
        signal_csv(config("signal_csv", tmp_path))


@pytest.mark.parametrize("window", [None, 2])
def test_numbers_to_predict_have_decimal_commas_too(tmp_path, window):
    """As words they would be classes, each of one example."""
    rows = [f"{i},5;{i};{i},25" for i in range(4)]
    (tmp_path / "train.csv").write_text("\n".join(["t0;t1;target", *rows]) + "\n")
    raw = signal_csv(config("signal_csv", tmp_path), window=window, leave_out=[])
    assert raw.targets == "values"
    expected = [0.25, 1.25, 2.25, 3.25] if window is None else [0.75, 1.75, 2.75]
    assert raw.train.labels[:, 0].tolist() == expected


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (7, 2, 11, 3)], ids=["in order", "shuffled"])
def test_row_numbers_and_empty_columns_are_no_values(tmp_path, name, numbers):
    rows = [[n, *signal, "ab"[i % 2], ""]
            for i, (n, signal) in enumerate(zip(numbers, SIGNALS, strict=True))]  # fmt: skip
    written(tmp_path, [[name, "t0", "t1", "t2", "label", ""], *rows])
    raw = signal_csv(config("signal_csv", tmp_path))
    assert raw.train.images[:, 0, 0].tolist() == SIGNALS


def test_columns_without_a_name_that_hold_something_are_told(tmp_path):
    written(tmp_path, [["t0", "", "label"], [1, 2.5, "a"], [3, 4.5, "b"]])
    with pytest.raises(InputError, match=r"train.csv:1: column 2 has no name and is no row number"):
        signal_csv(config("signal_csv", tmp_path))


def test_a_first_line_of_values_is_no_line_of_names(tmp_path):
    written(tmp_path, [[0.5, -0.25, 0.75, "a"], [1, 2, 3, "b"]])
    with pytest.raises(InputError, match=r"train.csv:1: holds numbers, where names of columns are"):
        signal_csv(config("signal_csv", tmp_path))
    # Wavelengths, or places, are names.
    written(tmp_path, [[400.5, 401.0, 401.5, "label"], [1, 2, 3, "b"], [1, 2, 4, "a"]])
    assert signal_csv(config("signal_csv", tmp_path)).train.images.shape == (2, 1, 1, 3)


def test_what_counts_rows_is_refused_until_a_job_says_what_it_is(tmp_path):
    """Networks would learn the class from the place of an example in the file."""
    rows = [[100 + i, i % 3, 1 - i % 2, "ab"[i % 2]] for i in range(12)]
    written(tmp_path, [["number", "x", "y", "label"], *rows])
    with pytest.raises(InputError, match=r"column number only counts.*leave_out: \[number\], or"):
        signal_csv(config("signal_csv", tmp_path))
    without = signal_csv(config("signal_csv", tmp_path), leave_out=["number"])
    assert without.train.images.shape == (12, 1, 1, 2)
    kept = signal_csv(config("signal_csv", tmp_path), leave_out=[])
    assert kept.train.images.shape == (12, 1, 1, 3)
    with pytest.raises(InputError, match="no column 'nmber'"):
        signal_csv(config("signal_csv", tmp_path), leave_out=["nmber"])


def test_the_clock_of_recordings_is_no_channel(tmp_path):
    (tmp_path / "train").mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        times = 1e9 + np.cumsum(0.01 + 0.001 * rng.random(40))  # jitters
        rows = ["time;x;label"] + [f"{t:.5f};{rng.normal():.3f};{'ab'[k % 2]}" for t in times]
        (tmp_path / "train" / f"{k}.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"column time .*tells the time.*leave_out: \[time\]"):
        signal_csv(config("signal_csv", tmp_path), window=8)
    raw = signal_csv(config("signal_csv", tmp_path), window=8, leave_out=["time"])
    assert raw.channels == 1


def recordings(folder, rows=40, *, clock=True, files=4):
    (folder / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(files):
        lines = ["time;x;y;label" if clock else "x;y;label"]
        for i in range(rows):
            time = f"{0.02 * i:.2f};".replace(".", ",") if clock else ""
            lines.append(f"{time}{rng.normal():.3f};{rng.normal():.3f};{'ab'[k % 2]}")
        (folder / "train" / f"{k}.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return folder


def test_moments_of_recordings_are_not_taken_for_signals(tmp_path):
    """Neighbours in time would be learnt from and validated on."""
    folder = recordings(tmp_path)
    with pytest.raises(InputError, match=r"leave_out: \[time\].*say data.options.window, too"):
        signal_csv(config("signal_csv", folder))


@pytest.mark.parametrize(
    ("made", "options", "found"),
    [
        ({"rows": 400}, {}, {"window": 64, "leave_out": ["time"]}),
        ({"rows": 400, "files": 1}, {}, {"window": 64, "leave_out": ["time"]}),
        ({"rows": 400, "clock": False}, {}, {"window": 64}),
        ({"rows": 400, "clock": False, "files": 1}, {}, {}),
        ({"rows": 40}, {}, {"window": 16, "leave_out": ["time"]}),
        ({"rows": 24}, {}, {}),
        ({"rows": 400}, {"window": 100}, {"leave_out": ["time"]}),
        ({"rows": 400}, {"leave_out": ["time"]}, {"window": 64}),
        ({"rows": 400}, {"window": None}, {}),
    ],
)
def test_recordings_are_told_from_signals(tmp_path, made, options, found):
    assert recorded(recordings(tmp_path, **made), options) == found


def test_rows_of_signals_are_no_recordings(tmp_path):
    (tmp_path / "train").mkdir()
    rng = np.random.default_rng(0)
    names = ",".join(f"v{i}" for i in range(30))
    for label in "ab":  # a file of each class
        rows = [",".join([*(f"{v:.2f}" for v in rng.normal(size=30)), label]) for _ in range(50)]
        (tmp_path / "train" / f"{label}.csv").write_text("\n".join([f"{names},label", *rows]))
    assert recorded(tmp_path, {}) == {}


def test_the_kind_is_told_by_the_targets(tmp_path):
    def kind(cells, **options):
        count = len(cells[0])
        names = ["label", "second"][: len(cells)]
        rows = [[i % 3, *(cell[i] for cell in cells)] for i in range(count)]
        written(tmp_path, [["x", *names], *rows])
        return signal_csv(config("signal_csv", tmp_path), targets=names, **options).targets

    fractions = [i / 7 for i in range(12)]
    bits = [i % 2 for i in range(12)]
    assert kind([["a", "b"] * 6]) == kind([bits]) == "classes"
    assert kind([fractions]) == kind([fractions, bits]) == "values"
    assert kind([bits, bits[::-1]]) == "labels"
    for cells, asked, words in (
        ([fractions], "classes", "12 different numbers.*signal_regression"),
        ([fractions, bits], "classes", "label, second are several, and a class is one column"),
        ([fractions, bits], "labels", "labels are 0 or 1 each"),
        ([bits], "masks", "signal_csv holds classes, labels or values, no masks"),
    ):
        with pytest.raises(InputError, match=words):
            kind(cells, kind=asked)


def test_a_label_of_a_window_is_there_in_half_of_its_rows(tmp_path):
    rows = [[i % 5, int(i > 2), int(i > 7)] for i in range(12)]
    written(tmp_path, [["x", "one", "other"], *rows])
    raw = signal_csv(config("signal_csv", tmp_path), targets=["one", "other"], window=4, hop=4)
    assert raw.targets == "labels" and raw.train.labels.tolist() == [[0, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize("name", ["window", "hop", "channels"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "8"])
def test_options_that_are_no_whole_numbers_are_told(tmp_path, name, value):
    written(tmp_path, [["x", "label"], [1, "a"], [2, "b"]])
    with pytest.raises(InputError, match=f"data.options.{name}: {value!r} is no whole number"):
        signal_csv(config("signal_csv", tmp_path), **{name: value})


def test_another_encoding_is_told_and_can_be_said(tmp_path):
    text = "größe,label\n1,süß\n2,a\n"
    (tmp_path / "train.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"is no utf-8.*data.options.encoding, such as latin"):
        signal_csv(config("signal_csv", tmp_path))
    raw = signal_csv(config("signal_csv", tmp_path), encoding="latin-1")
    assert raw.classes == ("a", "süß")
    with pytest.raises(InputError, match="'latin-one' is no encoding"):
        signal_csv(config("signal_csv", tmp_path), encoding="latin-one")


def test_thousands_are_not_taken_for_fractions(tmp_path):
    """What passes a thousand would be learnt as a thousandth of itself."""
    (tmp_path / "train.csv").write_text("t0;t1;t2;label\n998,5;999,5;1.001;a\n1,5;2,5;3,5;b\n")
    with pytest.raises(InputError, match=r"train.csv:2: '1\.001' is 1001 or 1\.001.*'998,5'"):
        signal_csv(config("signal_csv", tmp_path))


def test_a_column_of_words_is_one_mistake_and_a_date_is_a_clock(tmp_path):
    days = [f"2024-03-{1 + i // 24:02d} {i % 24:02d}:30:00.5" for i in range(40)]
    rows = [
        "day,x,place,state",
        *[f"{day},{i % 7},hall,{'ab'[i // 20]}" for i, day in enumerate(days)],
    ]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    with pytest.raises(InputError) as error:
        signal_csv(config("signal_csv", tmp_path), targets=["state"], window=8, leave_out=[])
    assert "has 2 mistakes" in str(error.value)
    assert "train.csv:1: column place holds text, such as 'hall', and no numbers" in str(
        error.value
    )
    found = recorded(tmp_path, {"targets": ["state"]})
    assert found["leave_out"] == ["day"]
    with pytest.raises(InputError, match="column day only counts the rows or tells the time"):
        signal_csv(config("signal_csv", tmp_path), targets=["state"], window=8)


def test_the_columns_that_are_told_are_those_that_may_be_targets(tmp_path):
    names = [f"t{i}" for i in range(50)]
    (tmp_path / "train.csv").write_text(
        ",".join([*names, "mood"]) + "\n" + ("1," * 50 + "good\n") * 2
    )
    with pytest.raises(InputError, match=r"targets: \[mood\].*t15, \.\.\., t48, t49, mood\)"):
        signal_csv(config("signal_csv", tmp_path))


def test_files_of_one_folder_are_the_training_set_unless_one_says_otherwise(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text("t0,t1,label\n1,2,x\n3,4,y\n")
    raw = signal_csv(config("signal_csv", tmp_path))
    assert raw.train.images.shape == (4, 1, 1, 2) and raw.test is None
    (tmp_path / "pumps_TEST.csv").write_text("t0,t1,label\n1,2,x\n")
    with pytest.raises(InputError, match=r"pumps_TEST.csv seems to be of one set"):
        signal_csv(config("signal_csv", tmp_path))


def test_the_folder_of_a_file_is_its_class_where_no_column_is(tmp_path):
    for part, classes in (("train", "xy"), ("test", "y")):
        for name in classes:
            (tmp_path / part / name).mkdir(parents=True)
            (tmp_path / part / name / "0.csv").write_text("u,v\n" + "1.5,2\n" * 8)
    raw = signal_csv(config("signal_csv", tmp_path), window=4)
    assert raw.classes == ("x", "y") and raw.test.labels.tolist() == [1, 1, 1]
    assert raw.groups.tolist() == [0, 0, 0, 1, 1, 1]
