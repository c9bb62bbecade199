"""An agent through kills, lost networks, restarted hubs and full disks: exactly once."""

import contextlib
import errno
import hashlib
import json

import httpx
import pytest

from devices.fleet.agent import outbox as outbox_module
from devices.fleet.agent.agent import Agent, Superseded
from devices.fleet.agent.config import AgentConfig, AgentLimits
from devices.fleet.link import HubRefused, HubUnreachable
from devices.fleet.messages import Held, JobRequest, Jobs, Submit
from devices.measuring.protocol import Protocol
from devices.measuring.store import MeasurementStore, Query
from devices.testing import Faults, InstantSampler, Killed
from search_spaces.errors import InputError

PROTOCOL = Protocol(processes=2, runs=5, retries=0, pin=False)


def submit(fleet, models, *, device="board", seed=0, **changes):
    """Queue a measurement of each model and return the jobs' numbers."""
    requests = []
    for model in models:
        sha256 = sha256_of(model)
        fleet.link().upload(sha256, model)
        protocol = {**PROTOCOL.to_json(), "seed": seed}
        requests.append(
            JobRequest(
                **{
                    "device": device,
                    "model": sha256,
                    "runtime": "onnxruntime",
                    "parameters": {"threads": 1, "batch": 1},
                    "protocol": protocol,
                    **changes,
                }
            )
        )
    views = fleet.hub.ledger.call(lambda t: fleet.hub.leases.submit(t, requests))
    return [view.job for view in views]


def sha256_of(model):
    query = Query(
        model=model, device="", runtime="", spec_parameters={}, protocol={}, identify=dict
    )
    return query.model_sha256


def expire(fleet):
    return fleet.hub.ledger.call(fleet.hub.leases.expire)


def states(fleet, jobs):
    found = dict(fleet.rows("SELECT job, state FROM jobs"))
    return [found[job] for job in jobs]


def assert_each_counted_once(fleet, jobs):
    assert states(fleet, jobs) == ["done"] * len(jobs)
    for job in jobs:
        assert fleet.rows("SELECT count(*) FROM events WHERE job = ? AND what = 'done'", job) == [
            (1,)
        ]
        ((result,),) = fleet.rows("SELECT result FROM jobs WHERE job = ?", job)
        samples = json.loads(result)["samples_ms"]
        assert [len(process) for process in samples] == [PROTOCOL.runs] * PROTOCOL.processes


def finish(agent, rounds=20):
    """Let an agent work until nothing is left."""
    for _ in range(rounds):
        try:
            if not agent.step():
                return
        except HubUnreachable:
            continue
    raise AssertionError("the agent did not come to an end")


class Trap:
    """Counts every point at which something can end, and springs at one of them."""

    def __init__(self, at, spring):
        self.at, self.spring, self.count, self.sprung = at, spring, 0, False

    def __call__(self, *_):
        self.count += 1
        if self.count == self.at:
            self.sprung = True
            self.spring()

    def faults(self):
        return Faults(before=self, after=self)


def die():
    raise Killed


def every_point(run):
    """Run a scenario with a trap at its first point, its second, ... until none is left."""
    at = 1
    while run(at):
        at += 1
    return at - 1


@pytest.mark.slow
def test_an_agent_killed_anywhere_loses_nothing_and_counts_nothing_twice(fleet, monkeypatch):
    fleet.agent().step()
    models = fleet.models(2)
    write = outbox_module.write_text_atomic

    def run(at):
        trap = Trap(at, die)
        jobs = submit(fleet, models, seed=at)
        # Before and after every exchange, every process, every file that is written.
        sampler = InstantSampler(before=trap)

        def writing(path, text):
            trap()
            write(path, text)
            trap()

        with monkeypatch.context() as patch:
            patch.setattr(outbox_module, "write_text_atomic", writing)
            with contextlib.suppress(Killed):
                finish(fleet.agent(faults=trap.faults(), sampler=sampler))
        sampler = InstantSampler()
        finish(fleet.agent(sampler=sampler))
        assert_each_counted_once(fleet, jobs)
        return trap.sprung

    assert every_point(run) >= 20


@pytest.mark.slow
def test_a_hub_killed_and_restarted_anywhere_loses_nothing(fleet):
    fleet.agent().step()
    models = fleet.models(2)

    def lost():
        fleet.network.restart()
        raise httpx.ReadError("the hub has gone")

    def run(at):
        trap = Trap(at, lost)
        jobs = submit(fleet, models, seed=at)
        finish(fleet.agent(faults=trap.faults()))
        assert_each_counted_once(fleet, jobs)
        return trap.sprung

    assert every_point(run) >= 12


def test_a_hub_restarted_between_any_two_requests_is_not_noticed(fleet):
    fleet.agent().step()
    jobs = submit(fleet, fleet.models(2))
    finish(fleet.agent(faults=Faults(before=lambda request: fleet.network.restart())))
    assert_each_counted_once(fleet, jobs)


def test_a_result_cut_off_on_its_way_is_delivered_again(fleet):
    agent = fleet.agent()
    agent.step()
    jobs = submit(fleet, fleet.models(1))
    cuts = [1, 100, 1000]
    faults = Faults()

    def cut(request):
        result = request.url.path.endswith("/result")
        faults.cut_body_at = cuts.pop() if result and cuts else None

    faults.before = cut
    finish(fleet.agent(faults=faults))
    assert not cuts
    assert_each_counted_once(fleet, jobs)


def test_a_result_whose_answer_was_lost_counts_once(fleet):
    agent = fleet.agent()
    agent.step()
    jobs = submit(fleet, fleet.models(1))
    lost = []

    def lose(request, response):
        if request.url.path.endswith("/result") and not lost:
            lost.append(response.status_code)
            raise httpx.ReadError("the answer was lost")

    finish(fleet.agent(faults=Faults(after=lose)))
    assert lost == [200]
    assert_each_counted_once(fleet, jobs)


def test_a_lease_whose_answer_was_lost_is_given_again_at_once_and_not_held_against_the_board(fleet):
    fleet.agent().step()
    (job,) = submit(fleet, fleet.models(1))
    lost = []

    def lose(request, response):
        if request.url.path.endswith("/lease") and len(lost) < 5:
            lost.append(request)
            raise httpx.ReadError("the answer was lost")

    finish(fleet.agent(faults=Faults(after=lose)))
    assert len(lost) == 5
    assert_each_counted_once(fleet, [job])
    assert fleet.rows("SELECT attempts FROM jobs") == [(1,)]


def test_a_late_result_is_refused_and_the_job_measured_again(fleet):
    agent = fleet.agent(sampler=InstantSampler(before=lambda models: fleet.time.advance(20)))
    agent.step()
    (job,) = submit(fleet, fleet.models(1))
    agent = fleet.agent(
        sampler=InstantSampler(
            before=lambda models: (
                fleet.time.advance(31),
                expire(fleet),
            )
        )
    )
    agent.step()
    assert states(fleet, [job]) == ["queued"]
    assert not list((fleet.folder / "boards" / "board" / "outbox").glob("*.json"))
    finish(fleet.agent())
    assert_each_counted_once(fleet, [job])


def test_heartbeats_keep_a_long_measurement_alive(fleet):
    agents = []
    sampler = InstantSampler(
        before=lambda models: [
            (
                fleet.time.advance(5),
                agents[0].beat(),
                fleet.hub.ledger.call(fleet.hub.leases.expire),
            )
            for _ in range(60)
        ]
    )
    agents.append(fleet.agent(sampler=sampler))
    agents[0].step()
    jobs = submit(fleet, fleet.models(2))
    finish(agents[0])
    assert_each_counted_once(fleet, jobs)
    assert fleet.rows("SELECT DISTINCT attempts FROM jobs") == [(1,)]


@pytest.mark.parametrize("hours", [1, -1])
def test_a_stepped_clock_changes_nothing(fleet, hours):
    sampler = InstantSampler(before=lambda models: fleet.time.step_wall(hours * 3600))
    agent = fleet.agent(sampler=sampler)
    agent.step()
    jobs = submit(fleet, fleet.models(2))
    fleet.time.step_wall(hours * 3600)
    finish(agent)
    fleet.time.step_wall(hours * 3600)
    assert expire(fleet) == []
    assert_each_counted_once(fleet, jobs)
    (view,) = fleet.hub.ledger.call(fleet.hub.fleet.view)
    assert view.state == "idle" and view.heartbeat_age_s == 0


def test_a_second_agent_supersedes_the_first_which_stops(fleet):
    first = fleet.agent()
    first.step()
    second = fleet.agent()
    second.step()
    with pytest.raises(Superseded, match="another agent has registered as board"):
        first.step()
    assert second.step() is False


def test_a_superseded_agent_breaks_off_and_delivers_nothing(fleet):
    agents = []

    def take_over(models):
        fleet.agent("board").step()
        agents[0].beat()

    sampler = InstantSampler(before=take_over)
    agents.append(fleet.agent(sampler=sampler))
    agents[0].step()
    (job,) = submit(fleet, fleet.models(1))
    agents[0].step()
    # The second agent measured it while the first was at work; one result counts.
    assert_each_counted_once(fleet, [job])
    with pytest.raises(Superseded):
        agents[0].step()


def test_a_cancelled_job_is_broken_off(fleet):
    agents, processes = [], []

    def cancel(models):
        processes.append(models)
        fleet.link().tell("DELETE", f"/api/jobs/{jobs[0]}")
        agents[0].beat()

    agents.append(fleet.agent(sampler=InstantSampler(before=cancel)))
    agents[0].step()
    jobs = submit(fleet, fleet.models(1))
    finish(agents[0])
    assert states(fleet, jobs) == ["cancelled"] and len(processes) == 1


def test_a_full_disk_on_the_board_is_reported_and_tried_again(fleet):
    fleet.agent().step()
    jobs = submit(fleet, fleet.models(1))
    agent = fleet.agent()
    full = [True]

    class FullFile:
        def __init__(self, handle):
            self.file = open(handle, "wb")  # noqa: SIM115

        def write(self, data):
            if full:
                full.pop()
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    agent._blobs._open = FullFile
    finish(agent)
    assert not full
    assert_each_counted_once(fleet, jobs)
    assert fleet.rows("SELECT count(*) FROM events WHERE what = 'infrastructure-failure'") == [(1,)]
    assert not list(agent._blobs.folder.glob(".part*"))


def test_a_result_that_cannot_be_written_is_delivered_from_memory(fleet, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outbox_module, "write_text_atomic", full)
    agent = fleet.agent()
    agent.step()
    jobs = submit(fleet, fleet.models(2))
    finish(agent)
    assert_each_counted_once(fleet, jobs)


def test_only_infrastructure_errors_are_tried_again(fleet):
    def broken(models):
        attempts.append(models)
        raise OSError(errno.EIO, "broken")

    attempts = []
    agent = fleet.agent(sampler=InstantSampler(before=broken))
    agent.step()
    jobs = submit(fleet, fleet.models(1))
    finish(agent)
    assert states(fleet, jobs) == ["failed"] and len(attempts) == 3
    # A refused job fails at once.
    config = AgentConfig(
        name="board", runtimes={"onnxruntime": {}}, limits=AgentLimits(processes=2, runs=3)
    )
    jobs = submit(fleet, fleet.models(1), seed=1)
    finish(fleet.agent(config=config))
    assert states(fleet, jobs) == ["failed"]
    ((failure, tried),) = fleet.rows("SELECT failure, attempts FROM jobs WHERE job = ?", jobs[0])
    assert tried == 1 and "this board allows 3 at most" in json.loads(failure)["detail"]


def test_a_board_that_fails_again_and_again_is_quarantined_until_released(fleet):
    def broken(models):
        raise OSError(errno.EIO, "broken")

    agent = fleet.agent(sampler=InstantSampler(before=broken))
    agent.step()
    jobs = submit(fleet, fleet.models(2))
    finish(agent)
    (view,) = fleet.hub.ledger.call(fleet.hub.fleet.view)
    assert view.state == "quarantined" and "5 failures in a row" in view.health
    assert "queued" in states(fleet, jobs)
    healthy = fleet.agent()
    assert healthy.step() is False
    fleet.link().tell("POST", "/api/devices/board/release")
    finish(healthy)
    assert "queued" not in states(fleet, jobs)


def test_a_job_that_kills_its_agent_goes_alone_and_is_given_up(fleet):
    fleet.agent().step()
    models = fleet.models(3)
    jobs = submit(fleet, models)
    poison = sha256_of(models[1])

    def dies(paths):
        if any(path.stem == poison for path in paths):
            raise Killed

    for _ in range(6):
        try:
            finish(fleet.agent(sampler=InstantSampler(before=dies)))
        except Killed:
            continue
        break
    assert states(fleet, jobs) == ["done", "expired", "done"]


def test_a_model_that_is_refused_by_the_board_is_not_loaded(fleet):
    config = AgentConfig(
        name="board", runtimes={"onnxruntime": {}}, limits=AgentLimits(elements=10)
    )
    sampler = InstantSampler()
    agent = fleet.agent(config=config, sampler=sampler)
    agent.step()
    submit(fleet, fleet.models(1))
    finish(agent)
    ((state, failure),) = fleet.rows("SELECT state, failure FROM jobs")
    assert state == "failed" and json.loads(failure)["kind"] == "refused"
    assert "elements" in json.loads(failure)["detail"] and sampler.measured == []


def test_a_rotated_token_takes_effect_without_a_restart(fleet):
    agent = fleet.agent()
    agent.step()
    issued = fleet.hub.ledger.call(lambda t: fleet.hub.tokens.rotate(t, "board"))
    with pytest.raises(HubUnreachable, match="does not accept the token"):
        agent.step()
    fleet.token_file("board", issued.token)
    assert agent.step() is False


def test_a_token_of_another_board_is_refused_at_once(fleet):
    fleet.token("board", "measure", "another")
    with pytest.raises(HubRefused, match="does not allow"):
        fleet.agent().step()


def test_the_name_is_that_of_the_token(fleet):
    fleet.token("board", "measure", "kitchen")
    fleet.agent(config=AgentConfig(runtimes={"onnxruntime": {}})).step()
    (view,) = fleet.hub.ledger.call(fleet.hub.fleet.view)
    assert view.name == "kitchen"
    assert view.description.runtimes[0].version
    assert view.description.fingerprint["cpu"] and view.description.hardware["memory_mib"] > 0


def test_run_goes_on_through_a_hub_that_is_away(fleet):
    import threading

    agent: Agent = fleet.agent()
    stop = threading.Event()
    fleet.network.down = True
    waits = []
    original = stop.wait

    def wait(seconds=None):
        if threading.current_thread().name == "heart":
            return original(seconds)
        waits.append(seconds)
        fleet.network.down = len(waits) < 3
        if len(waits) == 4:
            stop.set()
        return stop.is_set()

    stop.wait = wait
    steps = []
    step = agent.step

    def counted(**options):
        steps.append(step(**options))
        stop.set()

    agent.step = counted
    agent.run(stop)
    assert len(waits) == 3 and steps == [False]


def test_unknown_leases_are_told_to_stop(fleet):
    agent = fleet.agent()
    agent.step()
    agent._held = {"0" * 32: Held(job="0" * 32, fence=1)}
    agent.beat()
    assert agent._unwanted == {"0" * 32}


@pytest.mark.slow
def test_the_client_and_the_store_count_once_through_all_of_it(fleet, tmp_path):
    """A search that is killed asks again with the same keys and gets each result once."""
    agent = fleet.agent()
    agent.step()
    store = MeasurementStore(tmp_path / "store.db")
    models = fleet.models(3)
    options = {"archs": ["a", "b", "c"], "protocol": PROTOCOL, "store": store}

    def run(at):
        trap = Trap(at, die)
        changed = {**options, "protocol": Protocol.from_json({**PROTOCOL.to_json(), "seed": at})}
        for faults in (trap.faults(), None):
            try:
                device = fleet.device(faults=faults)
                # The board works whenever the client waits.
                device._sleep = lambda seconds: None
                step_while_waiting(device, agent)
                device.measure(models, **changed)
            except Killed:
                continue
        return trap.sprung

    def step_while_waiting(device, agent):
        wait = device._await
        device._await = lambda jobs: (finish(agent), wait(jobs))[1]

    points = every_point(run)
    assert points >= 10
    rows = store.rows()
    assert len(rows) == 3 * (points + 1)
    assert len({(row["arch"], row["protocol"]["seed"]) for row in rows}) == len(rows)
    done = fleet.rows("SELECT count(*) FROM events WHERE what = 'done'")
    assert done == [(3 * (points + 1),)]


def test_data_folders_must_hold_text(tmp_path):
    bad = tmp_path / "agent.yaml"
    bad.write_text("name: [1]\n")
    with pytest.raises(InputError, match="name"):
        AgentConfig.load(bad)


WILD = [None, -1, 0, 1.5, 2**70, -(2**70), "x", "", [], [999], {}, {"a": {}}, True, ["x"], 1e300]
NAMES = [
    ("parameters", name)
    for name in ("threads", "batch", "shapes", "provider", "graph_optimization", "tool", "nothing")
] + [
    ("protocol", name)
    for name in ("seed", "cores", "memory_limit_mib", "runs", "processes", "deadline_s", "nothing")
]


@pytest.mark.parametrize(("where", "name"), NAMES)
def test_a_value_that_a_job_got_wrong_is_its_own_fault_and_no_boards(fleet, where, name):
    agent = fleet.agent()
    agent.step()
    models = fleet.models(1)
    link = fleet.link()
    sha256 = hashlib.sha256(models[0].read_bytes()).hexdigest()
    link.upload(sha256, models[0])
    jobs = []
    for value in WILD:
        base = {"processes": 2, "runs": 3, "retries": 0} if where == "protocol" else {}
        asked = {"parameters": {}, "protocol": {}} | {where: {**base, name: value}}
        if where == "parameters":
            asked["protocol"] = {"processes": 2, "runs": 3, "retries": 0}
        request = JobRequest(device="board", model=sha256, runtime="onnxruntime", **asked)
        with contextlib.suppress(HubRefused):  # said at once, which is better still
            jobs += link.ask("POST", "/api/jobs", Jobs, Submit(jobs=[request])).jobs
    finish(agent, rounds=80)
    (view,) = fleet.hub.ledger.call(fleet.hub.fleet.view)
    assert view.failures == 0 and view.state != "quarantined"
    for job in jobs:
        ((state, failure),) = fleet.rows("SELECT state, failure FROM jobs WHERE job = ?", job.job)
        kind = json.loads(failure)["kind"] if failure else None
        assert state == "done" or (state, kind) in (
            ("failed", "refused"),
            ("failed", "unsupported"),
        )
