"""Faults around a worker: lost connections, server failures, fencing, and its death. Each test prints the account."""

import json
import signal
from collections.abc import Callable

import pytest

from morag_queue.errors import MoragQueueError
from morag_queue.local.waiting import until
from tests.faults.assertions import assert_nothing_lost
from tests.support.agent_fleet import AgentFleet

WORKER = "worker-cpu-1"
Make = Callable[..., AgentFleet]


@pytest.mark.parametrize("fault", ["blip", "restart"])
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_reconnects_after_a_fault_and_loses_no_task(pool: str, fault: str, make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet(persist=True, conf={"worker_prefetch_multiplier": 3})
    fleet.start_worker(WORKER, options=("-P", pool))
    running = fleet.submit("t.hold", str(fleet.release_file()), level=0)
    fleet.until_started(running)
    waiting = [fleet.submit("t.add", 1, number) for number in range(6)]
    if pool != "solo":  # it reserves nothing while it runs a task
        until(lambda: fleet.unacked_counts()[0] == 3, 10, lambda: f"nothing was prefetched: {fleet.where()}")

    if fault == "blip":
        assert fleet.close_connections(WORKER) > 0
    else:
        fleet.server.kill()
        if pool == "prefork":  # the result backend is down, too
            warning = f"the cancelled task {running} is not in the result backend: Error "
            until(lambda: warning in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))
        fleet.server.start()
    if pool == "prefork":  # Celery stops its process, and the task starts again
        until(lambda: fleet.counts("start")[running] == 2, 20, lambda: f"not started again: {fleet.where()}")
    fleet.release_file().touch()

    assert_nothing_lost(fleet, [running, *waiting])
    assert fleet.counts("start")[running] == (2 if pool == "prefork" else 1), running
    assert "Traceback" not in fleet.log(WORKER)
    fleet.until_states(dict.fromkeys([running, *waiting], "completed"))


def test_a_worker_registers_again_after_the_registry_is_lost(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKER)

    fleet.redis.flushall()

    until(lambda: fleet.redis.hget(fleet.keys.beats, WORKER), 10, "it did not register again")
    sent = [fleet.submit("t.add", 1, number) for number in range(5)]
    assert_nothing_lost(fleet, sent)
    assert fleet.redis.hget(fleet.keys.workers, WORKER)


def test_a_fenced_worker_drops_its_messages_and_returns_as_a_new_incarnation(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet(conf={"worker_prefetch_multiplier": 2})
    fleet.start_worker(WORKER)
    before = fleet.incarnation(WORKER)
    running = fleet.submit("t.hold", str(fleet.release_file()), level=0)
    fleet.until_started(running)
    waiting = fleet.submit("t.add", 1, 1)
    until(lambda: fleet.unacked_counts()[0] == 2, 10, lambda: f"not reserved: {fleet.where()}")

    fleet.redis.hset(fleet.keys.incarnations, WORKER, "fenced")
    assert fleet.registry.take_back(WORKER, before) == 2

    until(lambda: fleet.incarnation(WORKER) not in (before, "fenced"), 20, fleet.log(WORKER))
    fleet.release_file().touch()
    assert_nothing_lost(fleet, [running, waiting])


def test_a_fenced_worker_that_wakes_neither_runs_requeued_tasks_nor_settles_them(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet(conf={"worker_prefetch_multiplier": 2})
    fleet.start_worker(WORKER)
    fenced = fleet.incarnation(WORKER)
    running = fleet.submit("t.hold", str(fleet.release_file()), level=0)
    fleet.until_started(running)
    waiting = fleet.submit("t.hold", str(fleet.release_file("other")))
    until(lambda: fleet.unacked_counts()[0] == 2, 10, lambda: f"not reserved: {fleet.where()}")

    fleet.kill(WORKER, signal.SIGSTOP)
    fleet.redis.hset(fleet.keys.incarnations, WORKER, "fenced")
    assert fleet.registry.take_back(WORKER, fenced) == 2
    fleet.start_worker("worker-cpu-2", concurrency=2)
    until(lambda: fleet.counts("start")[waiting] == 1, 10, lambda: f"not started: {fleet.where()}")
    fleet.release_file().touch()  # the fenced worker's pool process ends its task as soon as it wakes
    fleet.kill(WORKER, signal.SIGCONT)
    until(lambda: fleet.incarnation(WORKER) not in (fenced, "fenced"), 20, lambda: fleet.log(WORKER))
    assert fleet.unacked_counts()[0] >= 1, "the new owner's record was destroyed"
    fleet.release_file("other").touch()

    assert_nothing_lost(fleet, [running, waiting], may_run_twice={running})
    assert fleet.counts("start")[waiting] == 1, waiting


def reserve_behind_a_task(fleet: AgentFleet) -> list[str]:
    """Reserve two tasks that start when a task ends; it ends during the pause."""
    running = fleet.submit("t.nap", 1, level=0)
    fleet.until_started(running)
    reserved = [fleet.submit("t.later") for _ in range(2)]
    until(lambda: fleet.unacked_counts()[0] == 3, 10, lambda: f"not reserved: {fleet.where()}")
    return reserved


def reserve_for_later(fleet: AgentFleet) -> list[str]:
    """Reserve two tasks that are due during the pause."""
    reserved = [fleet.send("cpu_standard", task="t.later", countdown=2) for _ in range(2)]
    until(lambda: fleet.unacked_counts()[0] == 2, 10, lambda: f"not reserved: {fleet.where()}")
    return reserved


@pytest.mark.parametrize("reserve", [reserve_behind_a_task, reserve_for_later])
def test_a_worker_fenced_during_a_short_pause_starts_no_reserved_task_when_it_wakes(
    reserve: Callable[[AgentFleet], list[str]], make_agent_fleet: Make
) -> None:
    """The pause is shorter than the heartbeat interval, so no heartbeat reports the fence in time."""
    fleet = make_agent_fleet(conf={"worker_prefetch_multiplier": 3}, env={"MORAG_QUEUE_AGENT__HEARTBEAT_SECONDS": "60"})
    fleet.start_worker(WORKER)
    fenced = fleet.incarnation(WORKER)
    reserved = reserve(fleet)

    fleet.kill(WORKER, signal.SIGSTOP)
    fleet.redis.hset(fleet.keys.incarnations, WORKER, "fenced")
    assert fleet.registry.take_back(WORKER, fenced) >= len(reserved)
    fleet.start_worker("worker-cpu-2")
    fleet.until_ran(reserved)
    fleet.kill(WORKER, signal.SIGCONT)
    until(lambda: fleet.incarnation(WORKER) not in (fenced, "fenced"), 20, lambda: fleet.log(WORKER))

    fleet.until_nothing_is_unacked()
    assert {fleet.counts("start")[task] for task in reserved} == {1}


def test_a_task_longer_than_the_visibility_timeout_starts_once(make_agent_fleet: Make) -> None:
    options = {"visibility_timeout": 1, "unacked_restore_interval": 0.2, "unacked_restore_throttle": 1}
    fleet = make_agent_fleet(conf={"broker_transport_options": options, "worker_prefetch_multiplier": 2})
    for name, pool in ((WORKER, "prefork"), ("worker-cpu-2", "solo")):
        fleet.start_worker(name, options=("-P", pool))
    eta = fleet.send("cpu_standard", task="t.later", level=0, countdown=6)
    until(lambda: fleet.unacked_counts()[0] == 1, 10, lambda: f"not reserved: {fleet.where()}")
    sent = [fleet.submit("t.hold", str(fleet.release_file())) for _ in range(3)]
    until(lambda: fleet.unacked_counts()[0] == 4, 10, lambda: f"not reserved: {fleet.where()}")
    taken = dict(fleet.redis.zrange(fleet.keys.unacked_index, 0, -1, withscores=True))

    def touched() -> float:
        now = dict(fleet.redis.zrange(fleet.keys.unacked_index, 0, -1, withscores=True))
        assert now.keys() == taken.keys(), "a message was delivered again"
        return min(now[tag] - taken[tag] for tag in taken)

    until(lambda: touched() > 3, 20, "not kept alive for three timeouts")
    fleet.release_file().touch()

    assert_nothing_lost(fleet, [*sent, eta])
    assert set(fleet.counts("start").values()) == {1}


def test_a_worker_name_is_refused_while_its_owner_lives_and_accepted_after_its_death(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    first = fleet.start_worker(WORKER)
    del fleet.workers[WORKER]

    with pytest.raises(MoragQueueError, match=rf"a live worker named {WORKER} runs on .* \(process {first.pid}\)"):
        fleet.start_worker(WORKER)

    assert json.loads(fleet.redis.hget(fleet.keys.workers, WORKER))["pid"] == first.pid
    del fleet.workers[WORKER]
    first.kill()
    first.wait()
    fleet.start_worker(WORKER)
    assert_nothing_lost(fleet, [fleet.submit("t.add", 1, 1)])


def test_flushed_scripts_and_closed_connections_under_load_lose_no_task(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    fleet.start_worker(WORKER, concurrency=2)
    sent: list[str] = []

    for number in range(10):
        sent += [fleet.submit("t.add", 1, 1) for _ in range(30)]
        fleet.redis.script_flush()
        if number % 3 == 0:
            fleet.close_connections(WORKER)
        fleet.until_ran(sent[: 20 * number])

    assert_nothing_lost(fleet, sent, may_run_twice=set(sent))


def test_an_idle_worker_polls_if_the_server_denies_client_tracking(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet()
    fleet.redis.acl_setuser("default", enabled=True, nopass=True, commands=["-client|tracking"])
    fleet.start_worker(WORKER)
    sent = [fleet.submit("t.add", 1, 1)]
    fleet.until_ran(sent)
    fleet.until_nothing_is_unacked()

    sent.append(fleet.submit("t.add", 1, 1))

    assert_nothing_lost(fleet, sent)
    assert "Unrecoverable" not in fleet.log(WORKER)


def test_a_worker_waits_for_a_server_that_is_down_and_then_registers(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet(persist=True)
    fleet.server.kill()
    fleet.start_worker(WORKER, wait=False)
    until(lambda: "Cannot connect to" in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))

    fleet.server.start()

    fleet.wait_for(WORKER)
    assert_nothing_lost(fleet, [fleet.submit("t.add", 1, 1)])


def test_a_cold_shutdown_requeues_running_tasks(make_agent_fleet: Make) -> None:
    fleet = make_agent_fleet(conf={"worker_prefetch_multiplier": 2})
    process = fleet.start_worker(WORKER)
    sent = [fleet.submit("t.hold", str(fleet.release_file())) for _ in range(2)]
    fleet.until_started(sent[0])
    until(lambda: fleet.unacked_counts()[0] == 2, 10, lambda: f"not reserved: {fleet.where()}")

    process.send_signal(signal.SIGQUIT)
    process.wait(30)
    del fleet.workers[WORKER]

    assert fleet.unacked_counts() == (0, 0, 0), fleet.where()
    fleet.start_worker("worker-cpu-2")
    fleet.release_file().touch()
    assert_nothing_lost(fleet, sent)
