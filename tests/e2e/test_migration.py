"""A plain Celery fleet moves to morag-queue and back, step by step, while work arrives and runs."""

import signal
from collections.abc import Callable, Iterator
from itertools import cycle
from threading import Event, Thread

import pytest
from celery import Celery

from morag_queue import route_task
from morag_queue.local.waiting import until
from morag_queue.service import producer
from tests.e2e.test_mixed_fleet import findings, start_plain
from tests.support.agent_fleet import AgentFleet
from tests.support.watch_process import start_watch

WEB_TASK = "morag.worker.process_web_page_task"
PRIORITIES = ("BATCH", "LOW", "NORMAL", "HIGH", "URGENT")
WORKERS = ("worker-1", "worker-2")
QUEUES = "celery,cpu_standard,cpu_batch"


class Producer:
    """An application that sends a task every 10 ms in a thread; `routes` is its one line of morag-queue."""

    def __init__(self, url: str) -> None:
        self._apps = {routes: Celery("producer", broker=url, set_as_current=False) for routes in (False, True)}
        self._apps[True].conf.task_routes = (route_task,)
        self._ends = Event()
        self.routes, self.sent = False, list[str]()
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for priority in cycle(PRIORITIES):
            if self._ends.wait(0.01):
                return
            sent = self._apps[self.routes].send_task(
                WEB_TASK, (f"https://example.org/{len(self.sent)}", {"sleep": 0.002}), ignore_result=True,
                headers={"morag_queue": {"priority": priority}},
            )  # fmt: skip
            self.sent.append(sent.id)

    def close(self) -> None:
        self._ends.set()
        self._thread.join()
        for app in self._apps.values():
            app.close()


@pytest.fixture
def fleet(make_agent_fleet: Callable[..., AgentFleet]) -> AgentFleet:
    return make_agent_fleet()


@pytest.fixture
def application(fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    monkeypatch.setenv("REDIS_URL", fleet.url)
    producer._producers.clear()
    application = Producer(fleet.url)
    yield application
    application.close()
    producer._producers.clear()


@pytest.mark.slow
def test_each_step_to_morag_queue_and_back_loses_nothing(fleet: AgentFleet, application: Producer) -> None:
    def plain(*workers: str, queues: str = QUEUES) -> None:
        fleet.stop(*workers)
        start_plain(fleet, *workers, queues=queues)

    def agent(*workers: str, claim: bool) -> None:
        fleet.stop(*workers)
        for worker in workers:
            env = {"MORAG_QUEUE_AGENT__CLAIM": str(claim)}
            fleet.start_worker(worker, env=env, options=("-Q", QUEUES), wait=False)
        fleet.wait_for(*workers)

    def all_that_was_sent_runs() -> None:
        """Wait also until each worker has started a task: one that stops while it starts may hang."""
        before = len(fleet.events("start"))
        until(
            lambda: {one["worker"].partition("@")[0] for one in fleet.events("start")[before:]} == {*WORKERS},
            30, lambda: f"a worker takes no task; {fleet.where()}",
        )  # fmt: skip
        fleet.until_ran(list(application.sent))

    def codes(severity: str = "") -> set[str]:
        return {one["code"] for one in findings(fleet) if severity in ("", one["severity"])}

    start_plain(fleet, *WORKERS, queues="celery")
    all_that_was_sent_runs()
    # 0: nothing installed
    until(lambda: {"OTHER_QUEUES", "QUEUE_WITHOUT_WORKER"} <= codes(), 30, "the doctor does not find the workers")
    assert codes("error") == set()
    # 1: the workers read the queues as well; then the producers route
    plain(*WORKERS)
    application.routes = True
    all_that_was_sent_runs()
    until(lambda: "WORKER_WITHOUT_AGENT" in codes(), 30, "the doctor does not find the plain workers")
    assert codes("error") == set()
    # 2, 3: the agent on one worker, then on all, without the claim
    for worker in WORKERS:
        agent(worker, claim=False)
        all_that_was_sent_runs()
    # 4: the claim
    agent(*WORKERS, claim=True)
    all_that_was_sent_runs()
    assert codes().isdisjoint({"WORKER_WITHOUT_AGENT", "NO_CLAIM"})
    # 6: the loop
    loop = start_watch(fleet)
    loop.wait_for("fleet_looked_at")
    all_that_was_sent_runs()
    # and back
    loop.signal(signal.SIGTERM)
    agent(*WORKERS, claim=False)
    all_that_was_sent_runs()
    for worker in WORKERS:
        plain(worker)
        all_that_was_sent_runs()
    application.routes = False
    all_that_was_sent_runs()
    plain(*WORKERS, queues="celery")

    all_that_was_sent_runs()
    application.close()
    fleet.until_ran(application.sent)
    fleet.stop()
    # A plain worker acknowledges after the run: one that is stopped in between leaves the message, or it runs again.
    held = fleet.redis.hlen("unacked")
    expected = {"QUEUES_IN_USE", "KEYS_REMAIN"} | ({"TASKS_HELD"} if held else set())
    assert {finding["code"] for finding in findings(fleet, "--leaving")} <= expected
    lanes = {one["lane"] for one in fleet.events("end")}
    assert lanes == {"celery", "cpu_standard", "cpu_batch"}
    done = fleet.account(application.sent)
    assert (done.lost, done.unexpected) == (frozenset(), frozenset())
    assert len(done.duplicated) + held <= len(WORKERS), "of several hundred tasks, and ten stops of workers"
