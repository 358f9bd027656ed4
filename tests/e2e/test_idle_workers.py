"""A message wakes one of the idle workers; those that are stopped or killed do not keep it from running."""

import signal
from collections.abc import Callable

from morag_queue.local.waiting import until
from tests.support.agent_fleet import AgentFleet

Make = Callable[..., AgentFleet]
WORKERS = [f"worker-cpu-{number}" for number in range(1, 6)]
GROUP = "celery,cpu_batch,cpu_standard"


def tracker(fleet: AgentFleet, gone: list[str]) -> str:
    """The worker that a push to the shared lanes wakes, once that is none of those that are gone."""
    until(
        lambda: fleet.redis.get(fleet.keys.tracker(GROUP)) not in (None, *gone), 10, "no living worker tracks the lanes"
    )
    return str(fleet.redis.get(fleet.keys.tracker(GROUP)))


def test_messages_run_although_all_idle_workers_but_one_are_stopped_or_killed(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    for name in WORKERS:
        fleet.start_worker(name, wait=False)
    fleet.wait_for(*WORKERS)
    until(lambda: fleet.redis.zcard(fleet.keys.waiting(GROUP)) == 4, 20, "not all workers became idle")
    sent, gone = [], []

    for sig in (signal.SIGSTOP, signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
        name = tracker(fleet, gone)  # it alone would be woken by the next message
        fleet.kill(name, sig)
        gone.append(name)
        sent.append(fleet.submit("t.add", 1, 1))
        fleet.until_ran(sent, 20)

    for name in gone[::2]:
        fleet.kill(name, signal.SIGCONT)
    sent += [fleet.submit("t.add", 1, 1) for _ in range(20)]
    fleet.until_ran(sent, 20)
    assert set(fleet.counts().values()) == {1}
    fleet.until_nothing_is_unacked()


def test_a_worker_put_back_into_service_takes_what_waits(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKERS[0])
    fleet.run("cordon", WORKERS[0], "--yes")
    sent = fleet.submit("t.add", 1, 1)
    until(lambda: fleet.redis.zcard(fleet.keys.waiting(GROUP)) == 0, 10, "a cordoned worker waits for shared work")
    assert not fleet.counts()

    fleet.run("uncordon", WORKERS[0])

    fleet.until_ran([sent])
