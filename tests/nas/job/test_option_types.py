"""Options of sources, strategies, executors and trackers: names and types, told with the job."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from nas.job.check import load_job
from nas.job.option_types import wrong_options
from search_spaces.errors import InputError


class Other:
    """No type of YAML."""


def make(
    config: Other,
    *,
    count: int = 1,
    share: float | None = None,
    name: str | None = None,
    on: bool = False,
    names: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    mode: Literal["a", "b"] = "a",
    table: Mapping[str, Any] | None = None,
    other: Other | None = None,
    later: "NotThere | None" = None,  # noqa: F821
    bare=None,
):
    """A factory as data sources are."""


def told(**options):
    found = wrong_options(("data", "options"), options, make, "source 'x'", own=("config",))
    return [(at[-1], message) for at, message in found]


@pytest.mark.parametrize(
    "options",
    [
        {"count": 3, "share": 1, "name": "x", "on": True},
        {"share": 0.5, "name": None, "names": ["a", "b"], "values": [0, 255]},
        {"names": [], "mode": "b", "table": {"a": 1}},
        # What no type is known of is the factory's own to check.
        {"other": 5, "later": 5, "bare": 5},
    ],
)
def test_options_of_their_types_pass(options):
    assert told(**options) == []


@pytest.mark.parametrize(
    "options, words",
    [
        ({"count": "3"}, "data.options.count: '3' is not a whole number"),
        ({"count": 2.0}, "2.0 is not a whole number"),
        ({"count": True}, "true is not a whole number"),
        ({"count": None}, "null is not a whole number"),
        ({"share": "half"}, "'half' is not a number"),
        ({"name": 5}, "5 is not text; write '5'"),
        ({"on": "yes"}, "'yes' is not true or false"),
        ({"on": 1}, "1 is not true or false"),
        ({"names": "ab"}, "'ab' is not a list of texts; write [ab]"),
        ({"names": ["a", 1]}, "1 is not text; write '1'"),
        ({"names": {"a": 1}}, "a mapping is not a list of texts"),
        ({"names": ["a", "b", "a"]}, "'a' is there twice"),
        ({"values": [0, "x"]}, "'x' is not a whole number"),
        ({"values": 7}, "7 is not a list of whole numbers; write [7]"),
        ({"mode": "c"}, "'c' is not 'a' or 'b'"),
        ({"table": [1]}, "a list is not a mapping"),
        ({"config": 1}, "unknown option 'config' of source 'x'"),
        ({"cuont": 1}, "unknown option 'cuont' of source 'x'; did you mean 'count'?"),
    ],
)
def test_what_is_no_option_or_of_another_type_is_told(options, words):
    ((key, message),) = told(**options)
    assert key == next(iter(options)) and words in message


def test_they_are_told_with_the_job_each_at_its_place(tmp_path):
    job = tmp_path / "job.yaml"
    job.write_text(
        "name: x\n"
        "task: signal_classification\n"
        "data: {name: signal_csv, path: ., options: {window: '8', targets: label}}\n"
        "space: {name: signal}\n"
        "executor: ray\n"
        "executor_options: {cpus: two}\n"
        "search: {options: {population: many}}\n"
    )
    with pytest.raises(InputError) as error:
        load_job(job)
    for place, words in (
        ("3:53", "data.options.window: '8' is not a whole number"),
        ("3:67", "data.options.targets: 'label' is not a list of texts; write [label]"),
        ("6:26", "executor_options.cpus: 'two' is not a whole number"),
        ("7:32", "search.options.population: 'many' is not a whole number"),
    ):
        assert f"{job}:{place}: {words}" in str(error.value).splitlines(), str(error.value)
