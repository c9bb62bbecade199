import json

import pytest

from devices.measuring.protocol import Protocol
from search_spaces.errors import InputError


def test_round_trip_through_json():
    protocol = Protocol(processes=3, runs=30, max_interval=None, cores=[1])
    assert Protocol.from_json(json.loads(json.dumps(protocol.to_json()))) == protocol


def test_unknown_key_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'processes'"):
        Protocol.from_json({"proceses": 3})


@pytest.mark.parametrize(
    "bad",
    [
        {"processes": 1},
        {"runs": 0},
        {"runs": 2.5},
        {"retries": -1},
        {"min_sample_ms": 0},
        {"deadline_s": float("inf")},
        {"max_interval": -0.1},
        {"max_spread": "5 %"},
        {"nice": 20},
    ],
)
def test_bad_values_are_named(bad):
    (name,) = bad
    with pytest.raises(InputError, match=name):
        Protocol(**bad)
