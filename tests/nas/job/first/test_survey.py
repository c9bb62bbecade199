"""What is seen of the data at a path, and the job that is written for it."""

from __future__ import annotations

import json
import wave

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import wavfile

from nas.data.splits import load_splits
from nas.job.check import load_job
from nas.job.first.layouts import guess_source, layout_hint
from nas.job.first.starts import SURVEYED, surveyed_start
from nas.job.first.survey import Survey, survey
from nas.job.first.template import job_text
from nas.job.sections.data import DataConfig
from nas.job.sections.finetune import FinetuneConfig
from nas.job.sections.supernet import SupernetConfig
from nas.tasks import AnomalyDetection
from search_spaces.errors import EnvironmentProblem, InputError

RNG = np.random.default_rng(0)


def _picture(path, width, height, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8), mode).save(path)


def _folder(root, count, sizes, mode="RGB"):
    for name in ("cats", "dogs"):
        for index in range(count):
            _picture(root / name / f"{index}.png", *sizes[index % len(sizes)], mode)
    return root


def image_folder(root):
    _folder(root, 6, [(40, 30)])


def image_csv(root):
    rows = [f"{i}.png,{i % 2}" for i in range(12)]
    for i in range(12):
        _picture(root / f"{i}.png", 40, 30)
    (root / "labels.csv").write_text("\n".join(["file,label", *rows]))


def coco_json(root):
    for i in range(8):
        _picture(root / "images" / f"{i}.png", 64, 48)
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(8)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400}
        for i in range(8)
    ]
    found = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cup"}]}
    (root / "train.json").write_text(json.dumps(found))


def yolo_txt(root):
    (root / "labels").mkdir(parents=True)
    for i in range(8):
        _picture(root / "images" / f"{i}.png", 64, 48)
        (root / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (root / "classes.txt").write_text("cup\n")


def pascal_voc(root):
    (root / "Annotations").mkdir(parents=True)
    for i in range(8):
        _picture(root / "JPEGImages" / f"{i}.jpg", 64, 48)
        (root / "Annotations" / f"{i}.xml").write_text(
            f"<annotation><filename>{i}.jpg</filename><size><width>64</width><height>48</height>"
            "</size><object><name>cup</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax>"
            "<ymax>30</ymax></bndbox></object></annotation>"
        )


def mask_folder(root):
    (root / "masks").mkdir(parents=True)
    for i in range(8):
        _picture(root / "images" / f"{i}.png", 64, 48)
        mask = RNG.integers(0, 2, (48, 64), dtype=np.uint8)
        Image.fromarray(mask, "L").save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text("ground\ncup\n")


def signal_ts(root):
    root.mkdir(exist_ok=True)
    head = "@problemName Two\n@univariate true\n@equalLength true\n@seriesLength 40\n"
    head += "@classLabel true a b\n@data\n"
    rows = [
        ",".join(f"{v:.3f}" for v in RNG.normal(size=40)) + f":{'ab'[i % 2]}" for i in range(12)
    ]
    for part in ("TRAIN", "TEST"):
        (root / f"Two_{part}.ts").write_text(head + "\n".join(rows))


def signal_numpy(root):
    root.mkdir(exist_ok=True)
    np.save(root / "x_train.npy", RNG.normal(size=(20, 2, 300)).astype(np.float32))
    np.save(root / "y_train.npy", np.arange(20) % 2)


def signal_csv(root):
    root.mkdir(exist_ok=True)
    rows = [",".join(f"{v:.3f}" for v in RNG.normal(size=40)) + f",{i % 2}" for i in range(12)]
    head = ",".join([*(f"v{i}" for i in range(40)), "label"])
    (root / "train.csv").write_text("\n".join([head, *rows]))


def audio_folder(root):
    for word in ("yes", "no"):
        (root / word).mkdir(parents=True)
        for i in range(6):
            with wave.open(str(root / word / f"{i}_nohash_0.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(RNG.integers(-99, 99, 16000, dtype=np.int16).tobytes())


def text(root):
    root.mkdir(exist_ok=True)
    (root / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 2000)


def text_pairs(root):
    words = ["".join(RNG.choice(list("abcd"), 5)) for _ in range(80)]
    root.mkdir(exist_ok=True)
    (root / "train.tsv").write_text("".join(f"{w}\t{w[::-1]}\n" for w in dict.fromkeys(words)))


MADE = {
    "image_folder": (image_folder, "image_classification", "mobilenet", "32x32-slim"),
    "image_csv": (image_csv, "image_classification", "mobilenet", "32x32-slim"),
    "coco_json": (coco_json, "object_detection", "detector", "48x48"),
    "yolo_txt": (yolo_txt, "object_detection", "detector", "48x48"),
    "pascal_voc": (pascal_voc, "object_detection", "detector", "48x48"),
    "mask_folder": (mask_folder, "semantic_segmentation", "segmenter", "48x48"),
    "signal_ts": (signal_ts, "signal_classification", "signal", "32-lean"),
    "signal_numpy": (signal_numpy, "signal_classification", "signal", "256-short"),
    "signal_csv": (signal_csv, "signal_classification", "signal", "32-lean"),
    "audio_folder": (audio_folder, "audio_classification", "mobilenet", "49x40-lean"),
    "text": (text, "language_modelling", "decoder", "60k"),
    "text_pairs": (text_pairs, "sequence_to_sequence", "encoder_decoder", "100k"),
}


@pytest.mark.parametrize("source", SURVEYED)
def test_every_source_is_told_by_its_layout_and_has_a_job(tmp_path, source):
    make, task, space, preset = MADE[source]
    make(tmp_path / "data")
    assert guess_source(tmp_path / "data") == source
    found = survey(source, tmp_path / "data")
    (tmp_path / "job.yaml").write_text(job_text(source, path="data", survey=found))
    job = load_job(tmp_path / "job.yaml")
    assert (job.task, job.space.name, job.space.preset) == (task, space, preset)
    traded = [str(goal.metric) for goal in job.objectives()]
    assert job.metric in traded[0]
    # Latencies of small networks differ by less than a short measurement tells; sizes are exact.
    assert "latency_ms" in traded[1] and traded[-1] == "weights_kib"


def test_what_is_no_data_is_not_taken_for_any(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    assert guess_source(tmp_path) is None
    assert guess_source(tmp_path / "nowhere") is None


def test_a_task_that_is_asked_for_is_what_the_job_says(tmp_path):
    signal_numpy(tmp_path)
    np.save(tmp_path / "y_train.npy", RNG.normal(size=20))
    found = survey("signal_numpy", tmp_path, task="signal_regression")
    assert found == Survey(20, 1, 1, 300, 2, targets="values", files=False)
    start = surveyed_start("signal_numpy", found)
    assert (start.task, start.space) == ("signal_regression", "signal")
    classes = Survey(20, 2, 1, 256, 1, files=False, names=("fault", "normal"))
    other = surveyed_start("signal_numpy", classes, task="anomaly_detection")
    assert other.space == "signal_autoencoder"
    with pytest.raises(InputError, match="anomaly_detecton"):
        surveyed_start("signal_numpy", classes, task="anomaly_detecton")
    with pytest.raises(InputError, match=r"holds one class an example.*needs boxes of objects"):
        surveyed_start("signal_numpy", classes, task="object_detection")


def test_a_number_that_never_changes_is_told_before_a_job_is_written(tmp_path):
    signal_numpy(tmp_path)
    for values, fix in (
        (np.stack([np.arange(20.0), np.full(20, 7.25)], 1), r"leave it out.*: \[y0\]"),
        (np.full(20, 1e-30) * np.arange(20), "nothing to predict"),
    ):
        np.save(tmp_path / "y_train.npy", values)
        with pytest.raises(InputError, match=f"has the same value in every .*{fix}"):
            survey("signal_numpy", tmp_path, task="signal_regression")


def test_the_class_that_anomalies_are_none_of_is_named(tmp_path):
    """A job is written only where it says which class is learned from, and its task takes it."""
    signal_numpy(tmp_path)
    np.save(tmp_path / "x_train.npy", RNG.normal(size=(40, 2, 64)))
    np.save(tmp_path / "y_train.npy", np.repeat(["worn", "fine: yes"], 20))
    found = survey("signal_numpy", tmp_path, task="anomaly_detection")
    with pytest.raises(InputError, match=r"classes 'fine: yes', 'worn'.*as data\.normal"):
        job_text("signal_numpy", path=".", survey=found, task="anomaly_detection")
    text = job_text(
        "signal_numpy", path=".", survey=found, task="anomaly_detection", normal="fine: yes"
    )
    (tmp_path / "job.yaml").write_text(text)
    job = load_job(tmp_path / "job.yaml")
    assert job.data.normal == "fine: yes"
    assert AnomalyDetection().load(job.data, 0).classes == ("fine: yes",)
    with pytest.raises(InputError, match="signal_classification learns from all classes"):
        job_text("signal_numpy", path=".", survey=found, normal="worn")
    long = Survey(20, 2, 1, 300, 1, files=False, names=("a", "b"))
    with pytest.raises(InputError, match="multiple of 8: 296 or 304"):
        surveyed_start("signal_numpy", long, task="anomaly_detection", normal="a")


def test_a_task_of_a_data_set_that_is_known_is_what_its_job_says(tmp_path):
    (tmp_path / "job.yaml").write_text(job_text("digits", task="image_embedding"))
    job = load_job(tmp_path / "job.yaml")
    assert job.task == "image_embedding" and job.metric == "recall_at_1"
    with pytest.raises(InputError, match="needs numbers to predict"):
        job_text("digits", task="image_regression")


def test_sides_channels_and_counts_are_seen(tmp_path):
    colour = survey("image_folder", _folder(tmp_path / "a", 6, [(40, 30), (30, 50), (90, 30)]))
    assert colour == Survey(examples=12, classes=2, height=30, width=30, channels=3)
    grey = survey("image_folder", _folder(tmp_path / "b", 3, [(28, 28)], "L"))
    assert grey == Survey(6, 2, 28, 28, 1)
    with pytest.raises(EnvironmentProblem, match="not a folder"):
        survey("image_folder", tmp_path / "nowhere")
    (tmp_path / "b" / "cats" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"bad\.png"):
        survey("image_folder", tmp_path / "b")


def test_pictures_of_one_folder_have_no_classes(tmp_path):
    _picture(tmp_path / "images" / "a.png", 8, 8)
    (tmp_path / "boxes.json").write_text("{}")
    assert guess_source(tmp_path) is None and "annotations.json" in layout_hint(tmp_path)
    _picture(tmp_path / "train" / "cats" / "a.png", 8, 8)
    _picture(tmp_path / "train" / "dogs" / "a.png", 8, 8)
    assert guess_source(tmp_path) == "image_folder"


def test_pictures_of_which_little_is_seen_are_told(tmp_path):
    wide = survey("image_folder", _folder(tmp_path / "a", 6, [(300, 30)]))
    assert "300 x 30 pixels" in wide.text and "middle, 10% of them" in wide.text
    config = DataConfig(name="image_folder", path=str(tmp_path / "a"), image_size=30)
    assert wide.unseen in load_splits(config, 0).warnings()
    assert survey("image_folder", _folder(tmp_path / "b", 6, [(40, 30)])).unseen is None
    # Scaled as a whole, since boxes lie everywhere in it.
    yolo_txt(tmp_path / "c")
    for i in range(8):
        _picture(tmp_path / "c" / "images" / f"{i}.png", 640, 48)
    assert survey("yolo_txt", tmp_path / "c").unseen is None


@pytest.mark.parametrize(
    ("found", "preset", "side", "batch"),
    [
        (Survey(20_000, 10, 28, 28, 1), "32x32-slim", 28, None),
        (Survey(60_000, 10, 8, 8, 1), "8x8-lean", 8, None),
        (Survey(3_000, 5, 64, 64, 3), "64x64-slim", 64, 64),
        (Survey(800, 2, 1200, 1200, 3), "128x128-lean", 128, 32),
    ],
)
def test_the_job_suits_the_pictures(tmp_path, found, preset, side, batch):
    (tmp_path / "pictures").mkdir()
    text = job_text("image_folder", path="pictures", survey=found)
    (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
    job = load_job(tmp_path / "job.yaml")
    assert job.space.preset == preset
    assert (job.data.image_size, job.data.channels) == (side, found.channels)
    assert yaml.safe_load(text)["space"]["resolutions"][-1] == side
    assert 10 <= job.budget.minutes <= 25
    if batch is not None:
        assert job.supernet.batch_size == job.finetune.batch_size == batch


@pytest.mark.parametrize(
    ("found", "decay"),
    [
        (Survey(120, 3, 1, 300, 1, files=False), 0.1),
        (Survey(300, 3, 1, 300, 1, files=False), 0.01),
        (Survey(120, 2, 64, 64, 3), 0.01),
    ],
)
def test_weights_of_few_signals_decay_more_and_learn_from_all_of_them(found, decay):
    source = "image_folder" if found.files else "signal_numpy"
    written = yaml.safe_load(job_text(source, path="data", survey=found))
    assert SupernetConfig(**written["supernet"]).weight_decay == decay
    assert FinetuneConfig(**written["finetune"]).refit == (decay > 0.01)


def test_options_with_which_data_is_read_are_those_of_the_job(tmp_path):
    mask_folder(tmp_path / "data")
    (tmp_path / "data" / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"data.options: \{names:"):
        survey("mask_folder", tmp_path / "data")
    found = survey("mask_folder", tmp_path / "data", options={"names": ["grün", "b"]})
    (tmp_path / "job.yaml").write_text(job_text("mask_folder", path="data", survey=found), "utf-8")
    assert load_job(tmp_path / "job.yaml").data.options == {"names": ["grün", "b"]}
    for options, words in (
        ({"naems": ["a", "b"]}, "unknown option 'naems'.*did you mean 'names'"),
        ({"names": "ab"}, "'ab' is not a list of texts"),
    ):
        with pytest.raises(InputError, match=words):
            survey("mask_folder", tmp_path / "data", options=options)


@pytest.mark.parametrize(("rate", "options"), [(8000, {"rate": 8000}), (16000, {})])
def test_the_rate_of_sounds_is_that_of_their_files(tmp_path, rate, options):
    def sound(name, rate):
        name.parent.mkdir(exist_ok=True)
        with wave.open(str(name), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(RNG.integers(-99, 99, rate, dtype=np.int16).tobytes())

    for i in range(4):
        sound(tmp_path / f"word{i % 2}" / f"{i}.wav", rate)
    found = survey("audio_folder", tmp_path)
    assert (found.options, found.height, found.width) == (options, 49, 40)
    # Of several rates none is taken for granted.
    for name in ("other", "others"):
        sound(tmp_path / "word0" / f"{name}.wav", 22050)
    words = "other.wav: has 22050 samples a second, not 16000, as have 1 more"
    with pytest.raises(InputError, match=words):
        survey("audio_folder", tmp_path)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Survey(91, 1, 47, 47, 3), "91 colour pictures of about 47 pixels; 1 class"),
        (Survey(9, 3, 8, 8, 1, "labels"), "9 grey pictures of about 8 pixels; 3 labels"),
        (Survey(60, 1, 1, 40, 1, "values", files=False),
         "60 signals of 1 channel, 40 values each; 1 number to predict"),
        (Survey(60, 2, 49, 40, 1, files=False), "60 examples of 1 x 49 x 40 values; 2 classes"),
        (Survey(44, 9, 1, 13, 1, "pairs", files=False), "44 examples of at most 13 symbols"),
    ],
)  # fmt: skip
def test_what_was_seen_is_told(found, words):
    assert found.text == words


def test_classes_that_are_far_from_even_are_told(tmp_path):
    _folder(tmp_path, 6, [(40, 30)])
    assert survey("image_folder", tmp_path).text.endswith("; 2 classes")
    for index in range(14):
        _picture(tmp_path / "dogs" / f"more{index}.png", 40, 30)
    found = survey("image_folder", tmp_path)
    assert found.text == "26 colour pictures of about 30 pixels; 2 classes, 6 of cats to 20 of dogs"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("recording.csv", "train.csv"),
        ("photo.JPG", "a folder for each class"),
        ("boxes.json", "annotations/instances_train.json"),
        ("sound.flac", "audio_folder"),
        ("notes.md", ""),
        ("running/1.csv", "one for each class"),
    ],
)
def test_files_that_lie_otherwise_are_told_how_to_lie(tmp_path, name, words):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    hint = layout_hint(tmp_path)
    assert words in hint and bool(hint) == bool(words)
    assert "is a file" in layout_hint(tmp_path / name)


def test_options_are_checked_before_files_are_read_with_them(tmp_path):
    signal_csv(tmp_path)
    with pytest.raises(InputError, match=r"'label' is not a list of texts; write \[label\]"):
        survey("signal_csv", tmp_path, options={"targets": "label"})


def test_anomalies_need_not_be_in_what_is_learned_from(tmp_path):
    for part, states in (("train", "n"), ("test", "nf")):
        (tmp_path / part).mkdir()
        for state in states:
            rows = [f"{RNG.normal():.3f},{state}" for _ in range(200)]
            (tmp_path / part / f"{state}.csv").write_text("\n".join(["x,label", *rows]))
    with pytest.raises(InputError, match="class 'f' of the test set"):
        survey("signal_csv", tmp_path, options={"window": 32})
    found = survey("signal_csv", tmp_path, task="anomaly_detection", options={"window": 32})
    assert found.names == ("f", "n") and "open_classes" not in found.options


def test_recordings_lie_in_one_folder_or_in_one_for_each_class(tmp_path):
    for k in range(6):
        place = tmp_path / "classes" / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        rows = [f"{i / 50},{RNG.normal():.3f}" for i in range(200)]
        (place / f"{k}.csv").write_text("\n".join(["t,x", *rows]))
        (tmp_path / "one").mkdir(exist_ok=True)
        named = "\n".join(["t,x,label", *[f"{row},{'ab'[k % 2]}" for row in rows]])
        (tmp_path / "one" / f"{k}.csv").write_text(named)
    for name in ("classes", "one"):
        assert guess_source(tmp_path / name) == "signal_csv"
        found = survey("signal_csv", tmp_path / name)
        assert found.options == {"window": 32, "leave_out": ["t"]}
        assert (found.names, found.channels) == (("a", "b"), 1)


@pytest.mark.parametrize("inside", ["", "photos"])
def test_the_table_of_pictures_may_have_any_name(tmp_path, inside):
    for i in range(6):
        _picture(tmp_path / inside / f"{i}.png", 30, 30)
    (tmp_path / "train.csv").write_text(
        "\n".join(["file,label", *[f"{i}.png,{'ab'[i % 2]}" for i in range(6)]])
    )
    assert guess_source(tmp_path) == "image_csv"
    found = survey("image_csv", tmp_path)
    assert found.options == {"labels": "train.csv"} and found.classes == 2
    (tmp_path / "more.csv").write_text("a,b\n1,2\n")
    assert guess_source(tmp_path) != "image_csv"


def test_exchanged_axes_are_told_and_long_sounds_are_heard(tmp_path):
    signals = tmp_path / "signals"
    signals.mkdir()
    np.save(signals / "x_train.npy", RNG.normal(size=(20, 50, 3)))
    np.save(signals / "y_train.npy", np.arange(20) % 2)
    assert "transpose" in survey("signal_numpy", signals).text
    for word in ("a", "b"):
        for i in range(2):
            place = tmp_path / "sounds" / "train" / word
            place.mkdir(parents=True, exist_ok=True)
            sound = (RNG.normal(size=24000) * 1000).astype(np.int16)
            wavfile.write(place / f"{i}.wav", 8000, sound)
    assert guess_source(tmp_path / "sounds") == "audio_folder"
    found = survey("audio_folder", tmp_path / "sounds")
    assert found.options == {"rate": 8000, "seconds": 3.0, "hop_ms": 30.0}
    assert found.height == 100 and "warning" not in found.text
    short = survey("audio_folder", tmp_path / "sounds", options={"seconds": 1.0})
    assert "say --option seconds=3" in short.text


def test_sounds_of_a_table_are_told_by_it(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "audio").mkdir()
    rows = ["filename,fold,target,category"]
    for i in range(10):
        wavfile.write(tmp_path / "audio" / f"{i}.wav", 16000, np.ones(16000, np.int16))
        rows.append(f"{i}.wav,{i // 2},{i % 2},{'ab'[i % 2]}")
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows))
    assert guess_source(tmp_path) == "audio_folder"
    found = survey("audio_folder", tmp_path)
    assert found.options == {"labels": "meta/esc50.csv"} and found.names == ("a", "b")


def test_series_of_unequal_length_are_padded_where_their_header_says_so(tmp_path):
    rows = [",".join("1" * (8 + i)) + f":{'ab'[i % 2]}" for i in range(6)]
    head = ["@equalLength false", "@classLabel true a b", "@data"]
    (tmp_path / "Walks_TRAIN.ts").write_text("\n".join([*head, *rows]))
    found = survey("signal_ts", tmp_path)
    assert found.options == {"unequal": "pad"} and found.width == 13


def test_sets_of_their_own_are_counted_apart(tmp_path):
    for part, count in (("train", 4), ("test", 3)):
        for word in ("a", "b"):
            for i in range(count):
                place = tmp_path / part / word
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(RNG.integers(0, 255, (16, 16), np.uint8)).save(place / f"{i}.png")
    found = survey("image_folder", tmp_path)
    assert found.examples == 8 and "for training (6 more for the test)" in found.text


def test_recordings_are_cut_into_windows(tmp_path):
    (tmp_path / "train").mkdir()
    for k in range(6):
        rows = [f"{i / 50},{RNG.normal():.3f},{'ab'[k % 2]}" for i in range(200)]
        (tmp_path / "train" / f"{k}.csv").write_text("\n".join(["t,x,label", *rows]))
    found = survey("signal_csv", tmp_path)
    assert found.options == {"window": 32, "leave_out": ["t"]}
    assert (found.channels, found.width) == (1, 32)
    assert "windows of 32 rows of recordings (--option window=N" in found.text
    job = yaml.safe_load(job_text("signal_csv", path=str(tmp_path), survey=found))
    assert job["data"]["options"] == {"window": 32, "leave_out": ["t"]}
    asked = survey("signal_csv", tmp_path, options={"window": 100})
    assert asked.options == {"window": 100, "leave_out": ["t"]}


@pytest.mark.parametrize("name", ["größe ä", "with space", "a\u2028b", "bad-\udcff"])
def test_the_path_of_the_data_is_what_the_job_reads_again(name):
    text = job_text("image_folder", path=name)
    text.encode("utf-8")
    assert yaml.safe_load(text)["data"]["path"] == name
    assert (name in text) == name.isprintable()


def test_pictures_with_values_are_not_said_to_be_mirrored():
    found = Survey(100, 1, 64, 64, 3, "values")
    assert "{flip: true}  # where a mirrored picture has the same values" in job_text(
        "image_csv", path="x", survey=found
    )
    other = Survey(100, 2, 64, 64, 3)
    assert "{flip: false}  # where a mirrored" in job_text("image_csv", path="x", survey=other)


@pytest.mark.parametrize("targets", ["boxes", "masks"])
@pytest.mark.parametrize(
    ("examples", "batch"), [(30, 16), (249, 16), (600, 32), (1000, 64), (9000, 64)]
)
def test_few_pictures_of_boxes_and_masks_come_in_small_batches(targets, examples, batch):
    source = {"boxes": "yolo_txt", "masks": "mask_folder"}[targets]
    found = Survey(examples, 3, 96, 96, 3, targets)
    text = job_text(source, path="x", survey=found)
    job = yaml.safe_load(text)
    assert job["supernet"]["batch_size"] == job["finetune"]["batch_size"] == batch
    assert (f"{examples} examples are few" in text) == (batch < 64)
