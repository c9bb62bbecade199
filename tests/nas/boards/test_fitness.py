"""What other machines would be told."""

from __future__ import annotations

import pytest

from nas.boards.fitness import machine_checks, verdict, work_jitter

CPU = "/sys/devices/system/cpu/cpu0"
GOOD = {
    f"{CPU}/cpufreq/scaling_governor": "performance",
    "/sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "/proc/loadavg": "0.05 0.1 0.2 1/200 4242",
    "/proc/cpuinfo": "flags\t\t: fpu avx2",
    "/proc/1/cgroup": "0::/init.scope",
    "/sys/class/powercap/intel-rapl:0/energy_uj": "12345",
}


def look(changes=None, *, cores=(0, 1, 2, 3), jitter=0.01):
    files = {**GOOD, **(changes or {})}
    checks = machine_checks(
        reader=files.get, cores=list(cores), total_cores=4, jitter=lambda: jitter
    )
    return {check.name: check for check in checks}


def test_a_well_set_machine_has_no_doubt():
    checks = look()
    assert not [check for check in checks.values() if check.ok is False]
    assert "nothing here speaks against it" in verdict(list(checks.values()))


@pytest.mark.parametrize(
    ("changes", "options", "name", "word"),
    [
        ({f"{CPU}/cpufreq/scaling_governor": "powersave"}, {}, "governor", "cpupower"),
        ({"/sys/devices/system/cpu/intel_pstate/no_turbo": "0"}, {}, "turbo", "no_turbo"),
        (
            {"/sys/devices/system/cpu/intel_pstate/no_turbo": None,
             "/sys/devices/system/cpu/cpufreq/boost": "1"}, {}, "turbo", "boost",
        ),
        ({"/proc/loadavg": "3.5 2 1 9/200 1"}, {}, "load", "stop other work"),
        ({}, {"cores": [0]}, "cores", "second"),
        ({"/proc/cpuinfo": "flags : fpu hypervisor"}, {}, "virtualisation", "neighbours"),
        ({"/proc/1/cgroup": "0::/docker/abc"}, {}, "virtualisation", "pin"),
        ({}, {"jitter": 0.5}, "steadiness", "top"),
    ],
)  # fmt: skip
def test_each_fault_is_a_doubt_with_advice(changes, options, name, word):
    checks = look(changes, **options)
    assert [n for n, check in checks.items() if check.ok is False] == [name]
    assert word in checks[name].advice
    assert name in verdict(list(checks.values()))


def test_a_machine_that_tells_nothing_is_not_judged():
    checks = machine_checks(
        reader=lambda path: None, cores=[0, 1], total_cores=2, jitter=lambda: 0.0
    )
    assert {check.name for check in checks if check.ok is None} >= {"governor", "turbo", "load"}
    assert not [check for check in checks if check.ok is False]


def test_jitter_is_a_share():
    assert work_jitter(40) >= 0
