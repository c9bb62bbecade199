"""What a run knows of latencies, with every registered predictor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from devices.measuring.protocol import Protocol
from nas.stages.latencies import Latencies, empty_table
from nas.stages.progress import Progress
from predictors.registry import LATENCY_PREDICTORS
from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from search_spaces.tables.table import LatencyTable

SPACE = MobileNetSpace.from_config(
    preset="8x8",
    stages=[{"channels": 8, "stride": 1, "depths": [1, 2]}],
    kernels=[3, 5],
    expands=[2, 3],
    input_channels=1,
    outputs=3,
)


def latency_ms(genes: np.ndarray, slope: float = 1.0) -> np.ndarray:
    return 0.1 + slope * SPACE.costs(genes)["macs"] / 1e6


class Bench:
    """A device that needs no files and no time."""

    spec = SimpleNamespace(form="", name="bench", runtime="none")
    concurrent = False

    def measure(self, paths, *, archs, on_result, protocol, **_):
        self.protocol = protocol
        found = []
        for i, value in enumerate(latency_ms(SPACE.genes([SPACE.parse(a) for a in archs]))):
            found.append(SimpleNamespace(latency_ms=float(value), energy_mj=None, detail=""))
            on_result(i, found[-1])
        return found


def made(name: str):
    make = LATENCY_PREDICTORS.get(name)
    return make(SPACE, episodes=2, query=20, draws=2) if name == "help" else make(SPACE)


def known() -> LatencyTable:
    genes = np.unique(SPACE.sample_genes(np.random.default_rng(1), 60), axis=0)
    archs = SPACE.decode(genes)
    return LatencyTable.from_archs(
        SPACE, archs, {f"d{k}": latency_ms(genes, 1 + k) for k in range(2)}
    )


def latencies(predictor, protocol=None) -> Latencies:
    return Latencies(
        SPACE,
        [Bench()],
        store=None,
        protocol=protocol,
        files=lambda arch, variant: None,
        predictor=lambda: predictor,
        failed=lambda arch, reason: pytest.fail(reason),
        progress=Progress(),
    )


def pool(count: int) -> list:
    genes = np.unique(SPACE.sample_genes(np.random.default_rng(2), count), axis=0)
    return list(dict.fromkeys([SPACE.smallest(), SPACE.largest(), *SPACE.decode(genes)]))


@pytest.mark.parametrize(
    ("of_protocol", "learning", "used"),
    [
        ((5, 100, 3), False, (5, 100, 3)),
        ((5, 100, 3), True, (3, 30, 2)),
        ((2, 20, 0), True, (2, 20, 0)),
    ],
)
def test_less_may_be_asked_of_a_measurement_than_the_protocol_does(of_protocol, learning, used):
    names = ("processes", "runs", "retries")
    given = Protocol(**dict(zip(names, of_protocol, strict=True)), max_drift=0.2)
    found = latencies(made("transfer_gp"), given)
    found.measure(pool(4), variant="search", learning=learning)
    (bench,) = found.devices.values()
    assert tuple(getattr(bench.protocol, name) for name in names) == used
    assert bench.protocol.max_drift == 0.2
    longer = of_protocol[0] * of_protocol[1] > 90
    assert (found.front_factor() > 1.5) == longer and found.front_factor() >= 1


@pytest.mark.parametrize("count", [11, pytest.param(14, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(LATENCY_PREDICTORS.names()))
def test_every_predictor_goes_from_choosing_to_predicting(name, count):
    pytest.importorskip("torch" if name == "help" else "sklearn")
    table = known()
    predictor = made(name)
    predictor.check_use(table, count)
    found = latencies(predictor.meta_fit(table))
    # A pool that holds hardly an architecture of the table.
    candidates = pool(80)
    chosen = found.choose(candidates, count)
    assert len(set(chosen)) == len(chosen) == count
    required = set(SPACE.decode(predictor.required_genes()))
    assert required <= set(chosen) <= required | set(candidates)
    found.measure(chosen, variant="search")
    found.adapt()
    mean, spread = found.predict_genes("latency_ms[bench]", SPACE.genes(candidates))
    assert np.isfinite(mean).all() and (mean >= 0).all()
    assert np.isfinite(spread).all() and (spread >= 0).all()


NEED_KNOWN_DEVICES = {"help", "known_devices_ridge", "one_known_device"}


@pytest.mark.parametrize("name", sorted(set(LATENCY_PREDICTORS.names()) - NEED_KNOWN_DEVICES))
@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_measurement_is_enough_for_most(name, count):
    table = empty_table(SPACE, [])
    predictor = made(name)
    predictor.check_use(table, count)
    found = latencies(predictor.meta_fit(table))
    chosen = found.choose(pool(30), count)
    assert chosen == [SPACE.smallest(), SPACE.largest()][:count]
    found.measure(chosen, variant="search")
    found.adapt()
    mean, _ = found.predict_genes("latency_ms[bench]", SPACE.genes(pool(30)))
    assert np.isfinite(mean).all() and (mean >= 0).all()


@pytest.mark.parametrize(
    ("table", "count", "message"),
    [
        (empty_table(SPACE, []), 20, "at least one meta-training device"),
        (known(), 10, "more than 10 measurements, not 10"),
        (known().rows(np.arange(15)), 20, "at least 25"),
    ],
)
def test_help_says_before_it_trains_what_it_lacks(table, count, message):
    with pytest.raises(InputError, match=message):
        made("help").check_use(table, count)
