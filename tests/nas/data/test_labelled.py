import numpy as np
import pytest
from PIL import Image

from nas.data.labelled import image_csv
from nas.data.splits import load_splits
from nas.job.sections.data import DataConfig
from search_spaces.errors import EnvironmentProblem, InputError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 255, (9, 9), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def config(folder, **rest):
    return DataConfig(name="image_csv", path=str(folder), channels=1, image_size=8, **rest)


def table(folder, head, rows):
    (folder / "labels.csv").write_text("\n".join([head, *rows]) + "\n")


def test_values_are_all_other_columns_and_splits_are_kept(folder):
    parts = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    table(folder, "file,height,width,split", [f"{i}.png,{i}.5,-1,{parts[i]}" for i in range(20)])
    raw = image_csv(config(folder), kind="values")
    assert raw.classes == ("height", "width") and raw.targets == "values"
    assert [len(part.labels) for part in (raw.train, raw.validation, raw.test)] == [12, 4, 4]
    assert raw.train.labels[3].tolist() == [3.5, -1.0] and not raw.flip
    only = image_csv(config(folder), kind="values", targets=["height"])
    assert only.classes == ("height",)
    splits = load_splits(config(folder, options={"targets": ["height"]}), 0, kind="values")
    images, targets = next(iter(splits.evaluation_batches(splits.test("check"))))
    assert images.shape == (4, 1, 8, 8) and targets.shape == (4, 1)


def test_labels_are_columns_of_zero_and_one_or_names_in_one_cell(folder):
    table(folder, "image,cat,dog", [f"{i}.png,{i % 2},{i % 3 == 0:d}" for i in range(20)])
    columns = image_csv(config(folder), kind="labels")
    cells = [
        "|".join(n for n, on in (("cat", i % 2), ("dog", i % 3 == 0)) if on) for i in range(20)
    ]
    table(folder, "image,labels", [f"{i}.png,{cell}" for i, cell in enumerate(cells)])
    names = image_csv(config(folder), kind="labels")
    assert columns.classes == names.classes == ("cat", "dog")
    np.testing.assert_array_equal(columns.train.labels, names.train.labels)
    splits = load_splits(config(folder, validation=0.3), 0, kind="labels")
    assert splits.targets == "labels" and splits.train.labels.shape == (20, 2)


@pytest.mark.parametrize(
    ("kind", "whole"), [("labels", True), ("values", True), ("classes", False)]
)
def test_what_may_be_anywhere_in_an_image_is_not_cut_off(tmp_path, kind, whole):
    """A mark at the left edge of a wide picture is what its target is about."""
    for i in range(20):
        pixels = np.tile(np.arange(64, dtype=np.uint8), (16, 1))
        pixels[:, :8] = 255 * (i % 2)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    head, of = ("file,label", "ab") if kind == "classes" else ("file,mark,other", ("0,1", "1,0"))
    table(tmp_path, head, [f"{i}.png,{of[i % 2]}" for i in range(20)])
    for asked, shown in ((None, whole), (True, True), (False, False)):
        options = {} if asked is None else {"whole": asked}
        splits = load_splits(config(tmp_path, options=options), 0, kind=kind)
        images, _ = next(iter(splits.evaluation_batches(splits.train)))
        assert bool((images != images[0]).any()) == shown
    assert splits.augmentation.scale == 1


def test_labels_may_be_words_of_truth(folder):
    table(folder, "file,cat,dog", [f"{i}.png,{i % 2 == 1},{i % 3 == 0}" for i in range(20)])
    raw = image_csv(config(folder))
    assert raw.targets == "labels" and raw.train.labels[3].tolist() == [1, 1]
    assert raw.train.labels[4].tolist() == [0, 0]


def test_the_only_other_column_is_the_target_and_the_likely_one_is_named(folder):
    table(folder, "file,mood", [f"{i}.png,{'ab'[i % 2]}" for i in range(20)])
    assert image_csv(config(folder)).classes == ("a", "b")
    table(folder, "file,id,angle", [f"{i}.png,x{i},{i}.5" for i in range(20)])
    with pytest.raises(InputError, match=r"targets: \[angle\]"):
        image_csv(config(folder))


def test_images_lie_beside_the_table_or_in_one_folder_with_or_without_their_ending(folder):
    (folder / "pictures").mkdir()
    for i in range(10):
        (folder / f"{i}.png").rename(folder / "pictures" / f"{i}.png")
    table(folder, "image_id,label", [f"{i},{'ab'[i % 2]}" for i in range(20)])
    paths = image_csv(config(folder)).train.paths
    assert paths[3] == folder / "pictures" / "3.png" and paths[13] == folder / "13.png"
    (folder / "pictures" / "13.png").write_bytes((folder / "13.png").read_bytes())
    table(folder, "image_id,label", ["13,a", "14,b", "50,a"])
    with pytest.raises(InputError) as error:
        image_csv(config(folder))
    assert "labels.csv:2: '13' may be" in str(error.value) and ":4: '50' has" in str(error.value)


def test_one_class_an_image_is_a_column_of_words(folder):
    table(folder, "file,label", [f"{i}.png,{'ab'[i % 2]}" for i in range(20)])
    raw = image_csv(config(folder))
    assert raw.classes == ("a", "b") and raw.train.labels.tolist() == [i % 2 for i in range(20)]


def test_every_mistake_is_told_with_its_line(folder):
    (folder / "note.txt").write_text("no image")
    table(folder, "file,cat,split", ["0.png,1,train", "99.png,1,train", "note.txt,0,train",
                                     "3.png,2,train", "4.png,,later"])  # fmt: skip
    with pytest.raises(InputError) as error:
        image_csv(config(folder), kind="labels")
    path = folder / "labels.csv"
    for line, words in ((3, "99.png is not there"), (4, "no ending of an image"),
                        (5, "2 is neither 0 nor 1"), (6, "a value is missing"),
                        (6, "split 'later'")):  # fmt: skip
        assert any(
            told.startswith(f"{path}:{line}: ") and words in told
            for told in str(error.value).splitlines()
        ), (line, words, str(error.value))


def test_a_group_is_never_in_two_sets(folder):
    rows = [f"{i}.png,{i % 2},{i // 5}" for i in range(20)]
    table(folder, "file,label,patient", rows)
    splits = load_splits(config(folder, validation=0.25, options={"group": "patient"}), 0)
    sets = [
        set((part.indices // 5).tolist())
        for part in (splits.train, splits.validation, splits._test)
    ]
    assert all(sets) and not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    table(folder, "file,label,patient,split", [f"{r},{'train' if i < 13 else 'test'}"
                                               for i, r in enumerate(rows)])  # fmt: skip
    with pytest.raises(InputError, match=r"patient '2' is in the test set and in the train set"):
        image_csv(config(folder), group="patient")


def test_a_missing_file_or_column_says_what_is_needed(folder):
    with pytest.raises(EnvironmentProblem, match=r"labels.csv is not there"):
        image_csv(config(folder))
    table(folder, "name,label", ["0.png,a"])
    with pytest.raises(InputError, match="the images have no names"):
        image_csv(config(folder))


@pytest.mark.parametrize(
    "head, cells, kind, classes",
    [
        ("label", lambda i: f"{i % 3}", "classes", ("0", "1", "2")),
        ("target", lambda i: f"{i / 7}", "values", ("target",)),
        ("labels", lambda i: "cat|dog" if i % 2 else "cat", "labels", ("cat", "dog")),
        ("cat,dog", lambda i: f"{i % 2},1", "labels", ("cat", "dog")),
        ("height,cat", lambda i: f"{i / 7},1", "values", ("height", "cat")),
    ],
)
def test_the_kind_is_told_by_the_columns(folder, head, cells, kind, classes):
    table(folder, f"file,{head}", [f"{i}.png,{cells(i)}" for i in range(20)])
    raw = image_csv(config(folder))
    assert (raw.targets, raw.classes) == (kind, classes)


def test_row_numbers_are_no_target(folder):
    """As pandas writes a table, unless told otherwise."""
    table(folder, ",file,height", [f"{i},{i}.png,{i / 7}" for i in range(20)])
    assert image_csv(config(folder), kind="values").classes == ("height",)
    table(folder, "file,id,height", [f"{i}.png,{i + 1},{i / 7}" for i in range(20)])
    with pytest.raises(InputError, match=r"column id only counts.*targets: \[height\]"):
        image_csv(config(folder), kind="values")
    assert image_csv(config(folder), kind="values", targets=["id"]).classes == ("id",)


def test_semicolons_decimal_commas_and_other_encodings_are_read(folder):
    rows = [f"{i}.png;{i},5;grün|rot" for i in range(20)]
    text = "\n".join(["file;höhe;labels", *rows])
    (folder / "labels.csv").write_text(text, encoding="latin-1")
    said = {"encoding": "latin-1"}
    numbers = image_csv(config(folder), kind="values", targets=["höhe"], **said)
    assert numbers.train.labels[3].tolist() == [3.5]
    assert image_csv(config(folder), kind="labels", **said).classes == ("grün", "rot")
    with pytest.raises(InputError, match="is no utf-8"):
        image_csv(config(folder))


def test_targets_of_another_kind_are_refused(folder):
    table(folder, "file,label,other", [f"{i}.png,{i / 7},1" for i in range(20)])
    with pytest.raises(InputError, match="image_csv holds classes, labels or values, no boxes"):
        image_csv(config(folder), kind="boxes")
    with pytest.raises(InputError, match=r"column label: 20 different numbers.*image_regression"):
        image_csv(config(folder), kind="classes")
    with pytest.raises(InputError, match="label, other are several, and a class is one column"):
        image_csv(config(folder), kind="classes", targets=["label", "other"])
