"""`cordon` and `uncordon`, and worker names as arguments."""

import pytest

from morag_queue.core.model import Cordon, WorkerStatus
from tests.cli.helpers import cordon_of, journaled_verbs


def test_a_cordoned_worker_claims_nothing_until_it_is_uncordoned(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    answer = fleet("cordon", "cpu-1", "--reason", "noisy fan", "--json").json
    assert (answer["worker"], answer["state"], answer["changed"]) == ("cpu-1", "cordoned", True)
    (worker,) = fleet("stats", "--json").json["workers"]
    assert worker["status"] == "cordoned"
    assert "noisy fan" in worker["reason"]
    assert "ann@" in worker["reason"]
    sim_fleet.submit("t")
    assert sim_fleet.claim("cpu-1") is None
    assert fleet("uncordon", "cpu-1", "--json").json["state"] == "online"
    assert sim_fleet.claim("cpu-1") == "t"
    assert journaled_verbs(sim_fleet) == [("cordon", "cpu-1"), ("uncordon", "cpu-1")]


def test_a_repeated_cordon_or_uncordon_changes_nothing(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    for command, state in (("cordon", "cordoned"), ("uncordon", "in service")):
        fleet(command, "cpu-1")
        entries = len(sim_fleet.broker.journal.latest(50))
        assert fleet(command, "cpu-1").out == f"cpu-1 is already {state}\n"
        assert len(sim_fleet.broker.journal.latest(50)) == entries


def test_an_uncordon_journals_the_previous_cordon_with_utc_times(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    fleet("cordon", "cpu-1")
    fleet("uncordon", "cpu-1")
    entry = fleet("journal", "ls", "--json").json["entries"][0]
    assert entry["changes"]["before"]["at"].startswith("20")
    assert entry["changes"]["before"]["at"].endswith("+00:00")
    assert "in service" in fleet("journal", "ls").out


def test_a_dry_run_of_cordon_changes_nothing(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    assert fleet("cordon", "cpu-1", "--dry-run").out == "cpu-1 would be cordoned\n"
    assert cordon_of(sim_fleet, "cpu-1") is None


def test_a_line_break_in_a_worker_name_is_escaped(sim_fleet, fleet):
    name = "e\x1b[2Jv\nerror: forged"
    sim_fleet.join(name)
    for verb in ("cordon", "uncordon", "drain"):
        assert fleet(verb, name).out.count("\n") == 1
    err = fleet("cordon", name, status=5).err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert "e\\x1b[2Jv\\nerror: forged is drained" in err


def test_cordon_refuses_a_drained_worker(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    fleet("drain", "cpu-1")
    assert "uncordon cpu-1" in fleet("cordon", "cpu-1", status=5).err
    assert cordon_of(sim_fleet, "cpu-1").state is WorkerStatus.DRAINED


def test_a_users_cordon_replaces_the_temporary_one_of_the_circuit_breaker(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    now = sim_fleet.broker.now()
    sim_fleet.broker.cordons.put(
        "cpu-1", Cordon(state=WorkerStatus.CORDONED, who="circuit breaker", until=now + 99), (None,)
    )
    fleet("cordon", "cpu-1")
    assert (cordon_of(sim_fleet, "cpu-1").until, cordon_of(sim_fleet, "cpu-1").who[:4]) == (None, "ann@")


@pytest.mark.parametrize("command", ["cordon", "uncordon", "drain"])
def test_a_worker_can_be_given_by_a_unique_prefix(sim_fleet, fleet, command):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.join("worker-gpu-1", "gpu")
    assert fleet(command, "worker-c", "--json").json["worker"] == "worker-cpu-1"
    refused = fleet(command, "worker-", status=2).err
    assert "worker-cpu-1, worker-gpu-1" in refused


def test_an_unknown_worker_exits_with_8_and_lists_the_known_ones(sim_fleet, fleet):
    sim_fleet.join("cpu-1")
    for command in ("cordon", "uncordon", "drain"):
        refused = fleet(command, "nobody", status=8).err
        assert "nobody" in refused
        assert "cpu-1" in refused
