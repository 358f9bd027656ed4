"""The memory and the Redis broker side by side through random operations: each message is in one place."""

import os

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from morag_queue.broker.requeue import RequeueRequest
from morag_queue.core.model import Requires
from morag_queue.errors import LeaseLost
from tests.support.broker_drivers import BrokerDriver, MemoryDriver, RedisDriver, move

LANES = ["cpu_standard", "gpu_priority", "cpu_standard.w", "gpu_priority.g"]
LEVELS = [0, 1, 4]
lanes, levels = st.sampled_from(LANES), st.sampled_from(LEVELS)


def requeued(driver: BrokerDriver, task_id: str, lane: str, deaths: int | None, term: str) -> list[str]:
    """Requeue a held task at its level."""
    held = next(one for one in driver.broker.observe()[0].held if one.task_id == task_id)
    request = RequeueRequest(held.tag, held.incarnation, task_id, lane, held.level, "test", deaths)
    with driver.broker.translated():
        return list(driver.broker.requeues.apply([request], term=term))


class SideBySide(RuleBasedStateMachine):
    """Runs every operation on both, compares the answers, then the places of all messages."""

    url = ""

    @initialize()
    def begin(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        self.drivers: tuple[BrokerDriver, BrokerDriver] = (MemoryDriver(), RedisDriver(self.url))
        self.submitted: set[str] = set()
        self.foreign = 0
        self.ended: set[str] = set()
        self.term = ""
        for driver in self.drivers:
            driver.join("w", "cpu", 2)
            driver.join("g", "gpu", 2)

    def both(self, does):
        """The common answer of both; a lost lease counts as an answer."""
        answers = []
        for driver in self.drivers:
            try:
                answers.append(does(driver))
            except LeaseLost:
                answers.append("lost")
        assert answers[0] == answers[1]
        return answers[0]

    @rule(lane=lanes, level=levels, count=st.integers(1, 4), requires=st.sampled_from(Requires))
    def submit(self, lane, level, count, requires) -> None:
        ids = [f"t{len(self.submitted) + n}" for n in range(count)]
        assert (
            self.both(lambda driver: driver.submit(*ids, lane=lane, level=level, requires=requires)) == [True] * count
        )
        self.submitted |= set(ids)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def submit_again(self, data) -> None:
        one = data.draw(st.sampled_from(sorted(self.submitted)))
        (queued,) = self.both(lambda driver: driver.submit(one, level=4))
        if queued:  # an id that has ended, unless its dead letter is kept
            assert one in self.ended
            self.ended.discard(one)

    @rule(lane=lanes, level=levels, raw=st.sampled_from(["", "no json", '{"headers": {}}']))
    def foreign_message(self, lane, level, raw) -> None:
        self.both(lambda driver: driver.push(raw, lane, level))
        self.foreign += 1

    @rule(worker=st.sampled_from(["w", "g"]))
    def claim(self, worker) -> None:
        self.both(lambda driver: driver.claim(worker))

    @rule(data=st.data())
    def end(self, data) -> None:
        held = sorted(one.task_id for one in self.drivers[0].broker.observe()[0].held)
        if held:
            one = data.draw(st.sampled_from(held))
            self.both(lambda driver: driver.end(one))
            self.ended.add(one)

    @rule(source=lanes, goal=lanes, level=levels, to_level=levels, count=st.integers(0, 9), keeps_gpu=st.booleans())
    def move_lane(self, source, goal, level, to_level, count, keeps_gpu) -> None:
        if (source, level) != (goal, to_level):
            options = {"to_level": to_level, "term": self.term, "keeps_gpu": keeps_gpu}
            self.both(lambda driver: driver.broker.moves.lane(source, goal, level, count, **options))

    @precondition(lambda self: self.submitted)
    @rule(data=st.data(), goal=lanes, to_level=levels, keeps_gpu=st.booleans())
    def move_tasks(self, data, goal, to_level, keeps_gpu) -> None:
        places = {one: place for place, ids in self.drivers[0].places().items() for one in ids}
        some = data.draw(st.lists(st.sampled_from(sorted(self.submitted)), max_size=4))
        steps = []
        for one in some:
            lane, level = places.get(one, ("cpu_standard", 4))  # its place, or a place it is not in
            steps.append(move(one, lane, level, goal, to_level, keeps_gpu=keeps_gpu))
        self.both(lambda driver: driver.broker.moves.tasks(steps, term=self.term))

    @rule(data=st.data(), goal=lanes, deaths=st.none() | st.integers(0, 2))
    def requeue(self, data, goal, deaths) -> None:
        held = sorted(one.task_id for one in self.drivers[0].broker.observe()[0].held)
        if held:
            task_id = data.draw(st.sampled_from(held))
            if self.both(lambda driver: requeued(driver, task_id, goal, deaths, self.term)) == ["quarantined"]:
                self.ended.add(task_id)

    @rule()
    def lead(self) -> None:
        self.term = str(self.both(lambda driver: driver.broker.leases.take("me", "ann", "watch", 600).term))

    @rule()
    def lose_the_lease(self) -> None:
        self.both(lambda driver: driver.expire_lease())

    @invariant()
    def every_message_is_in_the_same_one_place(self) -> None:
        if not hasattr(self, "drivers"):
            return
        places = self.both(lambda driver: driver.places())
        held = self.both(lambda driver: sorted(one.task_id for one in driver.broker.observe()[0].held))
        waiting = [one for ids in places.values() for one in ids if one in self.submitted]
        assert sorted(waiting + held) == sorted(self.submitted - self.ended)
        assert sum(map(len, places.values())) - len(waiting) == self.foreign

    @invariant()
    def the_snapshots_agree(self) -> None:
        if not hasattr(self, "drivers"):
            return
        snapshots = [driver.broker.observe(depth=2)[0] for driver in self.drivers]
        mine, theirs = ({view.lane: view for view in snapshot.lanes if view.length} for snapshot in snapshots)
        assert mine == theirs

    @invariant()
    def each_message_carries_the_address_of_its_lane(self) -> None:
        if not hasattr(self, "drivers"):
            return
        for driver in self.drivers:
            for (lane, level), ids in driver.places().items():
                for message, one in zip(driver.messages(lane, level), ids, strict=True):
                    if one in self.submitted:
                        properties = message["properties"]
                        assert (properties["delivery_info"]["routing_key"], properties["priority"]) == (lane, level)


@pytest.mark.slow
def test_both_brokers_do_the_same_and_lose_nothing(valkey):
    SideBySide.url = valkey
    run_state_machine_as_test(
        SideBySide,
        settings=settings(
            max_examples=int(os.environ.get("MORAG_EXAMPLES", 20)), stateful_step_count=25, deadline=None,
            report_multiple_bugs=False, suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
