"""Values that cannot be read: the agent and the loop go on, nothing is lost, and each value is named."""

import json
import socket

import pytest

from morag_queue.broker.inspection import inspect
from morag_queue.core.doctor import Code, diagnose
from morag_queue.errors import BrokerError
from tests.garbage.values import TEXTS


@pytest.fixture
def held(sim_fleet):
    """A fleet whose worker holds the task a."""
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a")
    assert sim_fleet.claim("cpu-1") == "a"
    return sim_fleet


@pytest.mark.parametrize("outcome", ["completed", "failed"])
@pytest.mark.parametrize("text", [b"x", b"", b"1e400", b"9" * 400], ids=["word", "empty", "infinite", "huge"])
def test_a_counter_that_is_no_number_does_not_stop_the_end_of_a_task(held, outcome, text):
    client, keys = held.client, held.keys
    names = [f"{outcome}|cpu-1", f"{outcome}||cpu_standard", "run_ms|cpu-1", "streak|cpu-1", "since|cpu-1|cpu_standard"]
    client.hset(keys.totals, mapping=dict.fromkeys(names, text))
    counters = ("completed", "failed", "wait_ms", "run_ms", "wait|1")
    client.hset(keys.current, mapping={f"cpu_standard|{name}": text for name in counters} | {"minute": text})
    held.end("a", outcome, "ValueError: no" if outcome == "failed" else "")
    assert client.hlen(keys.unacked) == client.hlen(keys.held) == 0
    assert held.broker.records(["a"])["a"].state == outcome
    assert (held.broker.dead.get("a") is not None) is (outcome == "failed")


@pytest.mark.parametrize("name", TEXTS)
def test_a_broken_holder_or_story_neither_stops_a_requeue_nor_loses_the_message(held, name):
    client, keys, text = held.client, held.keys, TEXTS[name]
    (tag,) = client.hkeys(keys.unacked)
    client.hset(keys.attempts, "story|a", text)
    assert held.broker.registry.take_back("cpu-1", "cpu-1.1", max_deaths=3) == 1
    assert held.ids("cpu_standard", 4) == ["a"]
    assert [worker for _, worker, _ in json.loads(client.hget(keys.attempts, "story|a"))] == ["cpu-1"]

    held.claim("cpu-1")
    (tag,) = client.hkeys(keys.unacked)
    client.hset(keys.held, tag, text)
    assert held.broker.registry.take_back("cpu-1", "cpu-1.1", max_deaths=3) == 0
    assert client.hlen(keys.unacked) == 1, "without a holder it waits for the sweep"
    assert [value.field for value in held.broker.observe()[0].broken] == [tag.decode()]


@pytest.mark.parametrize("name", TEXTS)
def test_a_worker_with_a_broken_cordon_keeps_its_own_lane_and_takes_nothing_shared(sim_fleet, name):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("pinned", worker="cpu-1")
    sim_fleet.submit("shared")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "cpu-1", TEXTS[name])
    assert [sim_fleet.claim("cpu-1"), sim_fleet.claim("cpu-1")] == ["pinned", None]
    sim_fleet.beat("cpu-1")
    (view,) = sim_fleet.broker.observe()[0].workers
    assert view.cordon.reason == "its cordon cannot be read, see morag-queue doctor"


@pytest.mark.parametrize("name", TEXTS)
def test_a_worker_with_a_broken_registration_keeps_its_tasks_and_gets_none(held, name):
    held.client.hset(held.keys.workers, "cpu-1", TEXTS[name])
    snapshot = held.broker.observe()[0]
    (view,) = snapshot.workers
    assert (view.worker, view.info.queues, snapshot.held_count(view)) == ("cpu-1", (), 1)
    assert view.cordon.reason == "its registration cannot be read, see morag-queue doctor"
    assert held.broker.registry.acting("cpu-1").incarnation == "cpu-1.1"


@pytest.mark.parametrize(
    "wrong", [{"priority_steps": [10]}, {"priority_steps": [10**400]}, {"slots": -1}, {"worker": "v"}]
)
def test_a_registration_with_a_wrong_number_or_name_cannot_be_read(held, wrong):
    known = json.loads(held.client.hget(held.keys.workers, "cpu-1"))
    held.client.hset(held.keys.workers, "cpu-1", json.dumps(known | wrong))
    snapshot = held.broker.observe()[0]
    assert [value.field for value in snapshot.broken] == ["cpu-1"]
    assert snapshot.workers[0].info.queues == ()


def test_a_process_id_beyond_all_is_no_proof_of_a_death(held):
    assert not held.broker.evidence.process_is_gone(socket.gethostname(), 10**30)


@pytest.mark.parametrize("name", TEXTS)
def test_a_lease_that_cannot_be_read_is_replaced_under_a_new_term(sim_fleet, name):
    leases, keys = sim_fleet.broker.leases, sim_fleet.keys
    first = leases.take("one", "ann", "watch", 30.0)
    sim_fleet.client.set(keys.lease, TEXTS[name])
    assert leases.current() is None
    assert leases.renew(first, 30.0) is None
    second = leases.take("two", "bob", "watch", 30.0)
    assert (second.holder, second.term) == ("two", first.term + 1)


def test_no_lease_is_taken_where_the_last_term_cannot_be_read(sim_fleet):
    sim_fleet.client.set(sim_fleet.keys.terms, "x")
    words = r"BROKEN mq:terms is not a number; .* above every earlier one"
    with pytest.raises(BrokerError, match=words), sim_fleet.broker.translated():
        sim_fleet.broker.leases.take("one", "ann", "watch", 30.0)


def test_an_error_of_the_type_of_a_key_names_the_key(sim_fleet):
    sim_fleet.client.set(sim_fleet.keys.pauses, "x")
    with pytest.raises(BrokerError, match=r"of another type: mq:pauses$"), sim_fleet.broker.translated():
        sim_fleet.broker.pauses.put("cpu_batch", None)
    sim_fleet.client.lpush(sim_fleet.keys.held, "x")
    with pytest.raises(BrokerError, match=r"^mq:held: the key has another type than ours; .*nothing was changed"):
        sim_fleet.broker.observe()
    assert sim_fleet.broker.observe(partial=True)[0].held == ()


def test_doctor_names_each_value_and_its_remedy(held):
    client, keys = held.client, held.keys
    client.hset(keys.totals, "completed|cpu-1", "x")
    client.hset(keys.workers, "\x1b[2J", "x")
    client.xadd(keys.journal, {"x": "y"})
    found = diagnose(inspect(held.broker, "1"))
    broken = {finding.subject: finding.remedy for finding in found if finding.code is Code.BROKEN_VALUE}
    assert broken["mq:totals completed|cpu-1"] == "it counts again from zero after: HDEL mq:totals completed|cpu-1"
    assert broken["mq:workers \x1b[2J"] == "its agent writes it again after: HDEL mq:workers \x1b[2J"
    assert any(subject.startswith("mq:journal ") for subject in broken)


def test_many_broken_values_of_one_key_are_counted(sim_fleet):
    sim_fleet.client.hset(sim_fleet.keys.totals, mapping={f"completed|w{n}": "x" for n in range(500)})
    found = list(sim_fleet.broker.observe()[0].broken)
    assert [value.reason for value in found] == [*["the counter is no number"] * 3, "497 more values cannot be read"]


@pytest.mark.parametrize("part", ["}", "},", '},""', "} ,null", '}, "', "[", " ", '"'])
def test_a_hostile_record_of_unacked_is_read_in_linear_time(sim_fleet, part):
    """With a pattern that tries every split of the text, the server would stop for hours."""
    client, keys = sim_fleet.client, sim_fleet.keys
    client.hset(keys.unacked, "tag", "[" + part * 100_000)
    client.zadd(keys.unacked_index, {"tag": 1.0})
    assert sim_fleet.broker.lost.untouched(2.0, 0, 10) == []
