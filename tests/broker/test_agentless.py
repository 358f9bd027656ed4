"""Workers without the agent, by the answers that Celery's remote control returns."""

import time
from collections.abc import Collection
from typing import Any

import pytest
import redis

from morag_queue.broker.agentless import VISIBILITY_S, AgentlessWorkers
from morag_queue.broker.celery_control import CeleryControl
from morag_queue.broker.keys import Keys
from morag_queue.core.doctor.facts import AgentlessWorker
from morag_queue.settings import Settings
from tests.support.simulated_fleet import SimulatedFleet

MAILBOXES = "_kombu.binding.celery.pidbox"


class Answers(CeleryControl):
    """Remote control with fixed answers by question and node; keeps the questions asked."""

    def __init__(self, **answers: dict[str, Any]) -> None:
        super().__init__(Settings())
        self.answers, self.asked = answers, []

    def _ask(self, question: str, nodes: Collection[str], expected: int | None = None) -> dict[str, Any]:
        self.asked.append((question, sorted(nodes), expected))
        return {node: answer for node, answer in self.answers.get(question, {}).items() if node in nodes}


def workers(client: redis.Redis, control: CeleryControl, *nodes: str) -> AgentlessWorkers:
    for node in nodes:
        client.sadd(MAILBOXES, f"\x06\x16\x06\x16{node}.celery.pidbox")
    return AgentlessWorkers(client, Keys(), control)


def test_describe_returns_the_queues_and_safety_settings_of_unregistered_workers(client: redis.Redis) -> None:
    control = Answers(
        active_queues={"a@h": [{"name": "cpu_batch"}], "ours@h": [{"name": "x"}]},
        conf={"a@h": {"task_acks_late": False, "broker_url": "redis://secret"}},
    )

    described = workers(client, control, "a@h", "gone@h", "ours@h").describe({"ours@h"}, expected=1)

    assert described == (AgentlessWorker("a@h", ("cpu_batch",), {"task_acks_late": False}),)
    assert control.asked == [("active_queues", ["a@h", "gone@h"], 1), ("conf", ["a@h"], None)]


def test_describe_asks_nothing_if_no_answer_is_expected(client: redis.Redis) -> None:
    control = Answers()

    assert workers(client, control, "a@h").describe((), expected=0) == ()
    assert control.asked == []


@pytest.mark.parametrize(("timeouts", "shortest"), [([], VISIBILITY_S), ([60, 5], 5.0), ([7200], VISIBILITY_S)])
def test_the_shortest_visibility_timeout_counts(timeouts: list[int], shortest: float, client: redis.Redis) -> None:
    conf = {f"{n}@h": {"broker_transport_options": {"visibility_timeout": t}} for n, t in enumerate(timeouts)}

    assert workers(client, Answers(conf=conf)).visibility_seconds(conf) == shortest


def test_tasks_in_flight_are_those_active_reserved_and_scheduled(client: redis.Redis) -> None:
    control = Answers(
        active={"a@h": [{"id": "1"}]}, reserved={"a@h": [{"id": "2"}]}, scheduled={"a@h": [{"request": {"id": "3"}}]}
    )

    assert workers(client, control).in_flight(["a@h"]) == {"1", "2", "3"}


def test_the_counts_of_a_node_need_an_answer_to_each_question() -> None:
    complete = {"active": {"a@h": [1]}, "reserved": {"a@h": []}, "scheduled": {"a@h": [1, 2]}}

    counts = Answers(**complete).task_counts("a@h")
    assert counts is not None
    assert counts.total == 3
    assert Answers(active=complete["active"], reserved=complete["reserved"]).task_counts("a@h") is None


def test_a_unix_socket_url_is_passed_in_the_form_of_kombu() -> None:
    control = CeleryControl(Settings(redis_url="unix:///run/redis.sock?db=2"))

    assert control.app.conf.broker_url == "redis+socket:///run/redis.sock?virtual_host=2"
    with control.app.connection_for_write() as connection:
        assert connection.transport.driver_type == "redis"


def test_a_question_restores_no_message_whose_worker_has_a_longer_visibility_timeout(sim_fleet: SimulatedFleet) -> None:
    keys, client = sim_fleet.keys, sim_fleet.client
    sim_fleet.send("runs-for-hours")
    text = client.rpop(keys.list("cpu_standard", 4)).decode()
    client.hset(keys.unacked, "tag", f'[{text}, "", "cpu_standard"]')
    client.zadd(keys.unacked_index, {"tag": time.time() - 7200})  # kombu's default is one hour

    assert sim_fleet.broker.control.ping() == []

    assert client.hkeys(keys.unacked) == [b"tag"]
    assert client.keys("cpu_standard*") == []
