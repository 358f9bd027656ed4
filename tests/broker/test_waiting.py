"""Which of the waiting workers is woken: the scripts `wait` and `claim`, one call at a time."""

from typing import Any

import pytest
import redis

from morag_queue.agent import waiting
from morag_queue.agent.claim_request import ClaimCall, ClaimLane, WaitCall, claim_call, wait_call
from morag_queue.broker.keys import Keys
from morag_queue.broker.scripts import Script, source
from morag_queue.broker.workers import Cordons
from morag_queue.core.model import Cordon, WorkerStatus
from tests.broker.conftest import ScriptRunner

GROUP = "cpu_standard"


def lanes_of(worker: str) -> list[ClaimLane]:
    return [
        ClaimLane(f"cpu_standard.{worker}", "cpu_standard", is_own=True),
        ClaimLane("cpu_standard", "cpu_standard", is_own=False),
    ]


class Waiters:
    """Calls the scripts as a worker does."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.client, self.keys, self._tags = client, keys, 0
        self._claim, self._wait = Script(client, keys, ClaimCall), Script(client, keys, WaitCall)

    def wait(self, worker: str, **left: Any) -> str:
        answer: bytes = self._wait(wait_call(worker, lanes_of(worker), range(10), self.keys, **left))
        return answer.decode()

    def claim(self, worker: str, *, waits: bool = True) -> list[Any]:
        """Whether it took a message, or why not: [why, waiting workers, own left, shared left]."""
        self._tags += 1
        tag = f"tag-{self._tags}"
        answer = self._claim(claim_call(worker, "run", lanes_of(worker), range(10), self.keys, tag, waits=waits))
        if answer[0]:
            return ["took"]
        return [answer[1].decode(), *answer[2:]]

    @property
    def tracker(self) -> str | None:
        name: Any = self.client.get(self.keys.tracker(GROUP))
        return name and name.decode()

    @property
    def waiting(self) -> list[str]:
        """The next to be woken first."""
        found: Any = self.client.zrange(self.keys.waiting(GROUP), 0, -1)
        return [name.decode() for name in found]

    def reason(self, worker: str) -> bytes | None:
        found: Any = self.client.get(self.keys.bell(worker))
        return found


@pytest.fixture
def waiters(client: redis.Redis, keys: Keys) -> Waiters:
    return Waiters(client, keys)


def test_the_first_that_waits_tracks_the_lanes_and_the_others_wait_for_their_bell(waiters: Waiters) -> None:
    assert [waiters.wait(name) for name in ("a", "b", "c")] == ["tracking", "waiting", "waiting"]
    assert (waiters.tracker, waiters.waiting) == ("a", ["b", "c"])
    assert waiters.wait("a") == "tracking"
    assert 0 < waiters.client.pttl(waiters.keys.tracker(GROUP)) <= 2500


def test_who_takes_a_message_appoints_the_one_that_waits_longest(waiters: Waiters, runner: ScriptRunner) -> None:
    for name in ("a", "b", "c"):
        waiters.wait(name)
    runner.send()

    assert waiters.claim("a") == ["took"]

    assert (waiters.tracker, waiters.waiting) == ("b", ["c"])
    assert (waiters.reason("b"), waiters.reason("c")) == (b"track", None)
    assert waiters.wait("b") == "tracking"
    assert waiters.reason("b") is None


def test_where_more_waits_a_second_worker_is_woken_and_both_claim_at_once(
    waiters: Waiters, runner: ScriptRunner
) -> None:
    for name in ("a", "b", "c", "d"):
        waiters.wait(name)
    runner.send()
    runner.send()

    assert waiters.claim("a") == ["took"]

    assert (waiters.tracker, waiters.waiting) == ("b", ["d"])
    assert (waiters.reason("b"), waiters.reason("c")) == (b"work", b"work")
    assert waiters.wait("c") == "claim"
    assert waiters.wait("b") == "claim"


def test_a_busy_worker_wakes_nobody(waiters: Waiters, runner: ScriptRunner) -> None:
    """The tracker is woken by the push, or was busy then and appointed another."""
    waiters.wait("a")
    waiters.wait("b")
    runner.send()

    assert waiters.claim("busy", waits=False) == ["took"]

    assert (waiters.tracker, waiters.waiting) == ("a", ["b"])
    assert waiters.reason("b") is None


def test_the_last_waiting_worker_leaves_no_tracker_behind(waiters: Waiters, runner: ScriptRunner) -> None:
    waiters.wait("a")
    runner.send()

    assert waiters.claim("a") == ["took"]

    assert waiters.tracker is None
    assert waiters.wait("b") == "tracking"


def test_a_worker_that_finds_shared_work_by_itself_replaces_the_tracker(waiters: Waiters, runner: ScriptRunner) -> None:
    for name in ("dead", "b", "c"):
        waiters.wait(name)
    runner.send()

    assert waiters.claim("b") == ["took"]

    assert (waiters.tracker, waiters.waiting) == ("c", [])


@pytest.mark.parametrize(("worker", "tracker"), [("a", "b"), ("b", "a")])
def test_work_of_its_own_lane_replaces_only_a_tracker(
    worker: str, tracker: str, waiters: Waiters, runner: ScriptRunner
) -> None:
    waiters.wait("a")
    waiters.wait("b")
    runner.send(f"cpu_standard.{worker}")

    assert waiters.wait(worker) == "claim"
    assert waiters.claim(worker) == ["took"]

    assert (waiters.tracker, waiters.waiting) == (tracker, [])


def test_a_worker_that_no_longer_looks_again_is_not_woken(waiters: Waiters, runner: ScriptRunner) -> None:
    for name in ("a", "stopped", "c"):
        waiters.wait(name)
    waiters.client.zincrby(waiters.keys.waiting(GROUP), -9.0, "stopped")
    waiters.client.zincrby(waiters.keys.waiting(GROUP), -0.5, "c")
    runner.send()

    waiters.claim("a")

    assert (waiters.tracker, waiters.waiting) == ("c", [])


def test_to_look_again_keeps_the_place_of_a_worker(waiters: Waiters) -> None:
    for name in ("a", "b", "c"):
        waiters.wait(name)

    assert waiters.claim("b") == ["tracked", 2, 0, 0]

    assert waiters.waiting == ["c", "b"]
    assert waiters.claim("a") == ["untracked", 2, 0, 0]


def test_a_cordoned_tracker_appoints_another_and_waits_for_its_own_lanes_alone(waiters: Waiters) -> None:
    cordons = Cordons(waiters.client, waiters.keys)
    waiters.wait("a")
    waiters.wait("b")

    cordons.put("a", Cordon(state=WorkerStatus.CORDONED, who="me", at=1), [None])

    assert waiters.reason("a") == b"work"
    assert waiters.wait("a", shared=False) == "claim"
    assert waiters.claim("a") == ["closed", 0, 0, 0]
    assert (waiters.tracker, waiters.waiting) == ("b", [])
    assert waiters.wait("a", shared=False) == "waiting"
    assert (waiters.tracker, waiters.waiting) == ("b", [])


def test_messages_that_it_may_not_claim_do_not_wake_a_worker(waiters: Waiters, runner: ScriptRunner) -> None:
    runner.put("not a message")
    runner.put("not a message", lane="cpu_standard.a")
    runner.client.set(waiters.keys.list("cpu_standard.a", 7), "another type")

    assert waiters.claim("a") == ["untracked", 0, 1, 1]

    assert waiters.wait("a", own_left=1, shared_left=1) == "tracking"
    assert waiters.wait("b", own_left=0, shared_left=1) == "waiting"
    runner.send()
    assert waiters.wait("a", own_left=1, shared_left=1) == "claim"


def test_a_message_is_claimed_although_the_keys_of_those_that_wait_have_another_type(
    waiters: Waiters, runner: ScriptRunner
) -> None:
    runner.send()
    runner.client.set(waiters.keys.waiting(GROUP), "another type")

    assert waiters.claim("a") == ["took"]


def test_the_scripts_and_the_agent_agree_when_a_waiting_worker_looks_again() -> None:
    text = source("claim")
    assert f"math.max({waiting.WAITER_SECONDS}, {waiting.WAITER_SECONDS_EACH} *" in text
    assert f"TRACKER_MS = {2.5 * 1000 * waiting.TRACKER_SECONDS:.0f} " in text
