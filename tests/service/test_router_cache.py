"""When a process reads the fleet to route its tasks: in a call, in the background, not at all."""

import threading
from collections.abc import Mapping

import pytest

from morag_queue.core.routing.feasibility import WorkerLoad
from morag_queue.core.snapshot import Snapshot
from morag_queue.errors import BrokerUnreachable
from morag_queue.service import router_cache
from morag_queue.service.router_cache import RouterCache
from morag_queue.settings import Settings

SECONDS = 20  # for a thread that needs milliseconds


class Fleet:
    """Counts the readings by thread. `may_answer` is cleared to let a reading wait; `failure` makes it fail."""

    def __init__(self) -> None:
        self.readers: list[str] = []
        self.asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()
        self.failure: Exception | None = None

    def read(self, pause: object) -> tuple[Snapshot, Mapping[str, WorkerLoad]]:
        self.readers.append(threading.current_thread().name)
        self.asked.set()
        assert self.may_answer.wait(SECONDS)
        if self.failure is not None:
            raise self.failure
        return Snapshot(1000.0), {}


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(router_cache, "monotonic", clock)
    return clock


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def cache(fleet: Fleet) -> RouterCache:
    return RouterCache(fleet.read, Settings(), stale_seconds=10.0)


CALL, BACKGROUND = threading.current_thread().name, "morag-queue-routing"


def wait_for_refresh() -> None:
    """Wait until the thread has ended."""
    for thread in threading.enumerate():
        if thread.name == BACKGROUND:
            thread.join(SECONDS)
            assert not thread.is_alive()


def test_the_first_call_reads_the_fleet_and_the_next_ones_use_it(
    cache: RouterCache, fleet: Fleet, clock: Clock
) -> None:
    first = cache.router()
    clock.now += 2.0
    assert cache.router() is first
    assert fleet.readers == [CALL]
    assert cache.now() == 1002.0


def test_a_call_does_not_wait_for_a_refresh(cache: RouterCache, fleet: Fleet, clock: Clock) -> None:
    first = cache.router()
    fleet.may_answer.clear()
    fleet.asked.clear()
    clock.now += 2.1
    assert cache.router() is first
    assert fleet.asked.wait(SECONDS)
    assert cache.router() is first, "one thread at a time"
    fleet.may_answer.set()
    wait_for_refresh()
    assert cache.router() is not first
    assert fleet.readers == [CALL, BACKGROUND]


def test_no_thread_is_left_in_an_idle_process(cache: RouterCache, clock: Clock) -> None:
    cache.router()
    assert not any(thread.name == BACKGROUND for thread in threading.enumerate())
    clock.now += 2.1
    cache.router()
    wait_for_refresh()
    assert not any(thread.name == BACKGROUND for thread in threading.enumerate())


def test_a_call_after_a_long_time_reads_the_fleet_itself(cache: RouterCache, fleet: Fleet, clock: Clock) -> None:
    first = cache.router()
    clock.now += 10.1
    assert cache.router() is not first
    assert fleet.readers == [CALL, CALL]


def test_a_failed_refresh_is_repeated_and_reported_when_the_router_is_too_old(
    cache: RouterCache, fleet: Fleet, clock: Clock
) -> None:
    first = cache.router()
    fleet.failure = BrokerUnreachable("the server is away")
    for _ in range(2):
        clock.now += 2.1
        assert cache.router() is first
        wait_for_refresh()
        assert cache.router() is first, "not at each call"
    clock.now += 6.0
    with pytest.raises(BrokerUnreachable, match="the server is away"):
        cache.router()
    assert fleet.readers == [CALL, BACKGROUND, BACKGROUND, CALL]


def test_a_process_that_may_start_no_thread_uses_what_it_has(
    cache: RouterCache, fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    first = cache.router()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    clock.now += 2.1
    assert cache.router() is first
    assert fleet.readers == [CALL]


def test_without_a_longer_limit_every_refresh_is_made_by_a_call(fleet: Fleet, clock: Clock) -> None:
    cache = RouterCache(fleet.read, Settings())
    first = cache.router()
    clock.now += 2.1
    assert cache.router() is not first
    assert fleet.readers == [CALL, CALL]
