"""The lists of ids: a task is found by the beginning of its id while its record exists."""

from collections.abc import Iterable

import pytest

from morag_queue.broker.dead_letters import Restart
from morag_queue.broker.ledger import Ledger
from morag_queue.broker.ledger_ids import LedgerIds
from tests.broker.conftest import ScriptRunner
from tests.broker.test_submit_script import outgoing
from tests.support.simulated_fleet import SimulatedFleet


class Listed:
    def __init__(self, runner: ScriptRunner) -> None:
        self.client, self.keys = runner.client, runner.keys
        self._ledger, self._ids = Ledger(runner.client, runner.keys, 60), LedgerIds(runner.client, runner.keys)

    def submit(self, ids: Iterable[str]) -> None:
        assert all(self._ledger.submit([outgoing(one) for one in ids]))

    def expire(self, ids: Iterable[str]) -> None:
        self.client.delete(*map(self.keys.task, ids))

    def starting(self, beginning: str, limit: int = 10_000) -> set[str]:
        return self._ids.starting(beginning, limit)

    def length(self, first: str) -> int:
        return self.client.llen(self.keys.ids(first))


@pytest.fixture
def listed(runner: ScriptRunner) -> Listed:
    return Listed(runner)


def test_ids_are_found_by_their_beginning(listed: Listed) -> None:
    listed.submit(["3f2a", "3f2b", "3e", "f3f2", "ü-1", "3", "3ü"])
    assert listed.starting("3f2") == listed.starting("3f") == {"3f2a", "3f2b"}
    assert listed.starting("3") == {"3f2a", "3f2b", "3e", "3", "3ü"}
    assert listed.starting("3f2b") == {"3f2b"}
    assert listed.starting("ü") == {"ü-1"}
    assert listed.starting("4") == listed.starting("3f2c") == set()


def test_the_search_ends_when_enough_ids_are_found(listed: Listed) -> None:
    listed.submit(["a11", "a12", "a13"])
    assert len(listed.starting("a1", limit=2)) == 2


def test_an_id_without_a_record_is_not_found(listed: Listed) -> None:
    listed.submit(["a1", "a2"])
    listed.expire(["a1"])
    assert listed.starting("a") == {"a2"}


def test_ids_are_found_in_all_parts_of_a_long_list(listed: Listed) -> None:
    ids = [f"xx{n:05}" for n in range(10_200)]
    for start in range(0, len(ids), 250):
        listed.submit(ids[start : start + 250])
    assert listed.starting("xx", 20_000) == set(ids)
    assert [listed.starting(one) for one in (ids[0], ids[5000], ids[-1])] == [{ids[0]}, {ids[5000]}, {ids[-1]}]


@pytest.mark.parametrize("size", [1, 40, 250])
def test_ids_whose_records_have_expired_are_dropped_and_the_others_stay(listed: Listed, size: int) -> None:
    waits = [f"w-long-{n}" for n in range(20)]
    listed.submit(waits)
    for start in range(0, 2000, size):
        part = [f"w-{n}" for n in range(start, start + size)]
        listed.submit(part)
        listed.expire(part)
    assert listed.starting("w") == set(waits)
    assert listed.length("w-") <= 20 + 3 * 250


def test_a_key_of_another_type_in_place_of_a_list_stops_no_submit(listed: Listed) -> None:
    listed.client.set(listed.keys.ids("a1"), "taken")
    listed.submit(["a1", "b1"])
    assert (listed.starting("a"), listed.starting("b")) == (set(), {"b1"})
    assert listed.client.get(listed.keys.ids("a1")) == b"taken"


def test_a_task_that_is_queued_again_is_listed_again(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a-1")
    sim_fleet.claim("cpu-1")
    sim_fleet.end("a-1", "failed", "broken")
    sim_fleet.client.delete(sim_fleet.keys.ids("a-"), sim_fleet.keys.task("a-1"))  # as after the retention time
    [letter] = sim_fleet.broker.dead.all()
    record, message = '{"state": "queued"}', letter.message or ""
    assert sim_fleet.broker.dead.restart([Restart("a-1", "cpu_standard", 4, message, record, letter.text)]) == [True]
    assert LedgerIds(sim_fleet.client, sim_fleet.keys).starting("a", 10) == {"a-1"}
