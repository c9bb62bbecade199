"""A board behind a hub, measured like this machine."""

import threading

from devices.measuring.protocol import Protocol
from devices.measuring.store import MeasurementStore
from devices.testing import InstantSampler

PROTOCOL = Protocol(processes=2, runs=5, retries=0, pin=False)


class Pump:
    """Runs an agent's rounds whenever a client sleeps or asks: a second thread that steps."""

    def __init__(self, *agents):
        self.agents, self.stop = agents, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.is_set():
            for agent in self.agents:
                agent.step()

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def test_a_remote_device_measures_stores_and_reuses(fleet, tmp_path):
    sampler = InstantSampler(latency_ms=lambda path: 2.0)
    agent = fleet.agent(sampler=sampler)
    agent.step()
    store = MeasurementStore(tmp_path / "store.db")
    models = fleet.models(3)
    options = {"archs": ["a", "b", "c"], "space": "s", "protocol": PROTOCOL, "store": store}
    with Pump(agent):
        found = fleet.device(name="kitchen").measure(models, **options)
    assert [m.latency_ms for m in found] == [2.0] * 3
    assert all(m.valid and m.device == "kitchen" for m in found)
    assert [row["arch"] for row in store.rows()] == ["a", "b", "c"]
    # Models of one kind are leased together, so that they are interleaved.
    assert [sorted(names) for names in sampler.measured] == [sorted(sampler.measured[0])] * 2
    assert len(sampler.measured[0]) == 3
    again = fleet.device(name="kitchen").measure(models, **options)
    assert again == found and len(store.rows()) == 3


def test_two_clients_of_one_board_share_what_is_the_same_and_take_turns(fleet, tmp_path):
    """Both ask before the board works: the common model is measured once, each gets its own."""
    sampler = InstantSampler(latency_ms=lambda path: 1.0 + len(sampler.measured))
    agent = fleet.agent(sampler=sampler)
    agent.step()
    common, first, second = fleet.models(3)
    clients = {"one": [common, first], "two": [common, second]}
    asked, found, stores = threading.Barrier(len(clients)), {}, {}

    def ask(name):
        device = fleet.device()
        stores[name] = MeasurementStore(tmp_path / f"{name}.db")
        wait = device._await

        def await_all(jobs):
            asked.wait(timeout=30)  # both are queued
            if name == "one":
                while agent.step():
                    pass
            asked.wait(timeout=30)
            return wait(jobs)

        device._await = await_all
        found[name] = device.measure(
            clients[name], archs=["common", name], protocol=PROTOCOL, store=stores[name]
        )

    threads = [threading.Thread(target=ask, args=(name,)) for name in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert found["one"][0].samples_ms == found["two"][0].samples_ms
    assert fleet.rows("SELECT count(*) FROM jobs") == [(3,)]
    assert fleet.rows("SELECT count(*) FROM events WHERE what = 'done'") == [(3,)]
    assert all(len(store.rows()) == 2 for store in stores.values())
