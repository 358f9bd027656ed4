"""A worker, a producer, an operator and `watch`, each with exactly the rights that `morag-queue acl` prints."""

from collections.abc import Callable

import pytest
from celery import Celery, chord

from morag_queue import route_task
from morag_queue.broker.roles import rights
from morag_queue.broker.scripts import load_missing
from morag_queue.core.enums import AclRole
from morag_queue.local.waiting import until
from morag_queue.settings import Settings
from tests.support.agent_fleet import AgentFleet
from tests.support.fleet import FILE_TASK
from tests.support.watch_process import start_watch

WORKER = "worker-cpu-1"


@pytest.fixture
def fleet(make_agent_fleet: Callable[..., AgentFleet]) -> AgentFleet:
    """A fleet with a login per role, and no other: the default user is for the test."""
    made = make_agent_fleet()
    load_missing(made.redis)
    for role in AclRole:
        rules = " ".join(rights(role, Settings(redis_url=made.url), no_eval=True).rules).split(" ")
        made.redis.execute_command("ACL", "SETUSER", role, "on", f">{role}", *rules)
    return made


def env(fleet: AgentFleet, role: str) -> dict[str, str]:
    return {"REDIS_URL": fleet.url.replace("redis://", f"redis://{role}:{role}@")}


def refusals(fleet: AgentFleet) -> list[str]:
    """What the server has refused to the logins, `<user>: <command or key>`, but the name and version of redis-py:
    Redis 7.0 knows no such right, and refuses a rule that names it."""
    refused = [f"{one['username']}: {one['object']}" for one in fleet.redis.acl_log()]
    return [one for one in refused if not one.endswith(": client|setinfo")]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_each_role_does_its_work_and_nothing_is_refused(fleet: AgentFleet, pool: str) -> None:
    def start(name: str) -> None:
        fleet.start_worker(name, env=env(fleet, "worker"), options=["-P", pool, "-E"], gossips=True)

    start(WORKER)
    fleet.redis.acl_log_reset()
    assert_a_producer_sends_and_reads_results(env(fleet, "producer")["REDIS_URL"])
    fleet.env |= env(fleet, "operator")
    for line in ("submit https://example.org/a.html --id s1", "stats", "pause cpu_standard", "resume cpu_standard"):
        fleet.run(*line.split())
    if pool == "prefork":
        killed = fleet.submit("t.nap", 60)
        fleet.until_started(killed)
        fleet.run("task", "cancel", killed, "--terminate")
        fleet.until_states({killed: "cancelled"})
    held = fleet.submit("t.nap", 2)
    fleet.until_started(held)
    start_watch(fleet, "--metrics-port", "0", env=env(fleet, "watch")).wait_for("leading")
    fleet.kill(WORKER)
    start(WORKER)  # it proves that its predecessor is dead, and takes back what that one held
    fleet.until_states({held: "completed"})
    fleet.until_nothing_is_unacked()
    fleet.stop()
    assert refusals(fleet) == []


def assert_a_producer_sends_and_reads_results(url: str) -> None:
    with Celery("app", broker=url, backend=url, set_as_current=False) as app:
        app.conf.update(task_routes=(route_task,), broker_transport_options={"priority_steps": list(range(10))})
        add, total = app.signature("t.add", (1, 2)), app.signature("t.total").set(queue="cpu_standard")
        assert add.set(queue="cpu_standard").delay().get(timeout=20) == 3
        assert chord([add.clone() for _ in range(3)], total).delay().get(timeout=20) == 9
        routed = app.send_task(FILE_TASK, ("/dev/null", "document"))
        assert routed.get(timeout=20) == "/dev/null"


def test_a_worker_waits_until_watch_has_loaded_the_scripts(fleet: AgentFleet) -> None:
    fleet.redis.script_flush()
    fleet.start_worker(WORKER, env=env(fleet, "worker"), wait=False)
    until(lambda: "start `morag-queue watch`" in fleet.log(WORKER), 20, lambda: fleet.log(WORKER))
    watch = start_watch(fleet, env=env(fleet, "watch"))
    fleet.wait_for(WORKER)
    sent = [fleet.submit("t.nap", 0)]
    fleet.until_ran(sent)

    fleet.redis.script_flush()
    watch.wait_for("scripts_loaded", 2)
    sent += [fleet.submit("t.nap", 0) for _ in range(5)]
    fleet.until_ran(sent)
    fleet.until_nothing_is_unacked()
    assert not fleet.account(sent).lost
    assert "Traceback" not in fleet.log(WORKER)
