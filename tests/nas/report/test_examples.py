import base64
import io
import json

import numpy as np
import pytest

from nas.report.examples import examples_section, load_examples
from search_spaces.errors import InputError

Image = pytest.importorskip("PIL.Image")


def png(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def example(**changes):
    grey = png(np.zeros((8, 8), np.uint8))
    return {"picture": grey, "width": 8, "height": 8, "caption": "one", "boxes": [], "mask": None,
            **changes}  # fmt: skip


def section(*examples, **rest):
    return examples_section(
        {"model": "m", "split": "validation", "classes": ["a", "b"], "examples": examples, **rest}
    )


def test_pictures_boxes_and_captions_are_drawn():
    box = {"corners": [0.1, 0.2, 0.5, 0.6], "kind": 1, "label": "b 90 %", "wanted": False}
    text = section(example(boxes=[box, {**box, "wanted": True, "label": ""}]))
    assert text.count("<image href='data:image/png;base64,") == 1
    assert text.count("<rect x='0.1000' y='0.2000' width='0.4000'") == 2
    assert "stroke-dasharray" in text and "b 90 %" in text and ">one<" in text
    assert "Dashed boxes are those of the annotations" in text


def test_boxes_are_spoken_of_only_where_there_are_some():
    found = {"corners": [0.1, 0.2, 0.5, 0.6], "kind": 1, "label": "b", "wanted": False}
    for one in (example(), example(boxes=[found]), {"caption": "a text"}):
        assert "Dashed boxes" not in section(one)


def test_masks_get_colours_and_signals_lines():
    mask = png(np.array([[0, 1], [1, 0]], np.uint8))
    assert section(example(mask=mask)).count("<image ") == 2
    assert "<polyline points='0.0000," in section({"lines": [[0.0, 1.0, 0.5]], "caption": "x"})


def test_what_a_file_holds_cannot_become_markup():
    evil = "<script>alert(1)</script>"
    box = {"corners": [0, 0, 1, "1' onload='x"], "kind": 0, "label": evil}
    good = {"corners": [0, 0, 1, 1], "kind": 0, "label": evil}
    text = section(
        example(caption=evil, picture="x' onerror='y", boxes=[box, good], mask="no base64"),
        {"lines": [[evil, 1.0]], "caption": evil},
        "no mapping",
        model=evil,
        split=evil,
        classes=[evil, evil],
    )
    assert "<script" not in text and "onerror" not in text and "onload" not in text
    assert text.count("&lt;script&gt;") >= 4
    svg = base64.b64encode(b"<svg onload='x'/>").decode()
    assert "<image" not in section(example(picture=svg))


def test_a_run_without_examples_has_no_section(tmp_path):
    assert load_examples(tmp_path) is None and examples_section(None) == ""
    (tmp_path / "examples.json").write_text(json.dumps({"examples": [example()]}))
    assert "figcaption" in examples_section(load_examples(tmp_path))
    for text in ("{", "[]", '{"examples": 3}'):
        (tmp_path / "examples.json").write_text(text)
        with pytest.raises(InputError, match="delete it"):
            load_examples(tmp_path)
