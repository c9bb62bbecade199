"""Values of a key that takes several kinds are told once, at their place and in plain words."""

import pytest

from nas.job.check import load_job
from nas.job.kinds import members
from nas.job.schema import Job
from nas.job.yaml_source import DiagnosticsError


@pytest.fixture
def told(tmp_path):
    def run(text: str) -> list[str]:
        path = tmp_path / "job.yaml"
        path.write_text(f"name: a\n{text}\n", encoding="utf-8")
        with pytest.raises(DiagnosticsError) as caught:
            load_job(path)
        return str(caught.value).replace(f"{path}:", "").splitlines()

    return run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data: {name: digits, normalisation: imagnet}",
            "2:37: data.normalisation: 'imagnet' is not imagenet or a mapping of keys to values; "
            "did you mean 'imagenet'?",
        ),
        (
            "data: {name: digits, normalisation: {mean: [0.5], deviation: 1}}",
            "2:62: data.normalisation.deviation: 1 is not a list; write [1]",
        ),
        (
            "data: {name: digits, normalisation: {mean: [0.5], deviation: [1], rnge: unit}}",
            "2:67: unknown key 'rnge' in data.normalisation; did you mean 'range'? "
            "(allowed: mean, deviation, range, order)",
        ),
        (
            "data: {name: digits, normal: 3}",
            "2:30: data.normal: 3 is not text or a list; write it in quotes",
        ),
        (
            "data: {name: digits, normal: [a, 3]}",
            "2:34: data.normal.1: 3 is not text; write it in quotes",
        ),
        (
            "data: {name: digits, normal: []}",
            "2:30: data.normal: the list is empty; give at least one entry",
        ),
        (
            "data: {name: digits}\nsupernet: {distillation: onyl}",
            "3:26: supernet.distillation: 'onyl' is not true, false or only; did you mean 'only'?",
        ),
        (
            "data: {name: digits}\nfinetune: {distillation: on}",
            "3:26: finetune.distillation: 'on' is not true, false or only; "
            "write true without quotes",
        ),
        (
            "data: {name: digits}\nsupernet: {quantizers: {activations: [lsq]}}",
            "3:38: supernet.quantizers.activations: a list is not text or a mapping of keys to "
            "values",
        ),
        (
            "data: {name: digits}\nsupernet: {quantizers: {weights: {2: [lsq]}}}",
            "3:38: supernet.quantizers.weights.2: a list is not text",
        ),
        (
            "data: {name: digits}\nsupernet: {quantizers: {weights: {2.5: lsq}}}",
            "3:35: key '2.5' must be a word",
        ),
    ],
)
def test_a_value_of_no_allowed_kind_is_one_mistake(told, text, message):
    assert told(text) == [message]


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "[[3]]",
        *(
            pytest.param(value, marks=pytest.mark.slow)
            for value in ("3", "2.5", "on", "[]", "{a: {b: 1}}", "null")
        ),
    ],
)
def test_no_value_of_any_key_ends_otherwise_than_in_words(told, value):
    # Whatever stands at whatever key of a section, none of pydantic's own words is told.
    for name, field in Job.model_fields.items():
        sections = [kind for kind in members(field.annotation) if hasattr(kind, "model_fields")]
        for key in [key for kind in sections for key in kind.model_fields]:
            own = f"{name}: {{name: digits, {key}: {value}, zzz: 1}}"
            text = own if name == "data" else f"data: {{name: digits}}\n{own}"
            for line in told(text):
                assert not any(
                    word in line for word in ("literal[", "dict[", "list[", "Input should", ".str:")
                ), line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search:", "search: null is not a mapping of keys to values; leave search out for"),
        ("search: {evaluations: '20'}", "'20' is not a whole number; write it without quotes"),
        ("supernet: {compile: 'true'}", "'true' is not true or false; write true without quotes"),
        ("supernet: {compile: off}", "'off' is not true or false; write false without quotes"),
        ("budget: 25", "write {minutes: 25} or {cpu_minutes: 25}"),
        ("task: [image_classification]", "task: a list is not text"),
    ],
)
def test_the_fix_of_a_wrong_kind(told, text, message):
    (line,) = told(f"data: {{name: digits}}\n{text}")
    assert message in line and not line.endswith("a list is not text; write it in quotes")
