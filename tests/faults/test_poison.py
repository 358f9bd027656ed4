"""Tasks that kill their process: they are quarantined, and the workers that ran them stay in service."""

from tests.support.agent_fleet import AgentFleet
from tests.support.watch_process import start_watch


def breaker_fleet(make_agent_fleet, **conf) -> AgentFleet:
    """Return a fleet whose circuit breakers open at the second failure."""
    env = {
        "MORAG_QUEUE_POLICY__RECOVERY__BREAKER_FAILURES": "2",
        "MORAG_QUEUE_POLICY__RECOVERY__RETRY_DELAY_SECONDS": "0.1",
        "MORAG_QUEUE_POLICY__MAX_RETRIES": "1",
    }
    return make_agent_fleet(env=env, conf=conf)


def test_a_task_that_kills_its_process_again_and_again_leaves_its_worker_in_service(make_agent_fleet):
    fleet = breaker_fleet(make_agent_fleet)
    for name in ("worker-1", "worker-2"):
        fleet.start_worker(name)
    poison = fleet.submit("t.die", lane="cpu_standard.worker-1")
    good = fleet.submit("t.nap", 0, lane="cpu_standard.worker-2")
    fleet.until_states({poison: "quarantined", good: "completed"})
    assert fleet.counts("start")[poison] == 2
    assert {row["worker"]: (row["status"], row["failures_in_a_row"]) for row in fleet.run_json("stats")["workers"]} == {
        "worker-1": ("online", 0), "worker-2": ("online", 0),
    }  # fmt: skip


def test_tasks_whose_process_is_lost_do_not_count_against_the_worker_if_they_fail_at_once(make_agent_fleet):
    fleet = breaker_fleet(make_agent_fleet, task_reject_on_worker_lost=False)
    for name in ("worker-1", "worker-2"):
        fleet.start_worker(name)
    for _ in range(2):
        poison = fleet.submit("t.die", lane="cpu_standard.worker-1")
        good = fleet.submit("t.nap", 0, lane="cpu_standard.worker-2")
        fleet.until_states({poison: "failed", good: "completed"})
    assert {row["worker"]: (row["status"], row["failures_in_a_row"]) for row in fleet.run_json("stats")["workers"]} == {
        "worker-1": ("online", 0), "worker-2": ("online", 0),
    }  # fmt: skip


def test_a_worker_that_a_task_kills_again_and_again_is_back_in_service_once_the_task_is_quarantined(make_agent_fleet):
    fleet = breaker_fleet(make_agent_fleet)
    watch = start_watch(fleet, "--interval", "1s", "--json")
    watch.wait_for("leading")
    worker = fleet.start_worker("worker-1")
    watch.wait_for("worker_joined")
    poison = fleet.submit("t.die_with_worker", str(fleet.release_file()))
    for deaths in (1, 2):
        fleet.release_file().touch()
        worker.wait(20)
        del fleet.workers["worker-1"]
        worker = fleet.start_worker("worker-1", wait=False)
        watch.wait_for("worker_returned", deaths)
    fleet.until_states({poison: "quarantined"})
    good = fleet.submit("t.nap", 0)
    fleet.until_states({good: "completed"})
    assert fleet.redis.hget(fleet.keys.cordons, "worker-1") is None
    assert fleet.counts("start")[poison] == 2
