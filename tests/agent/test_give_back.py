"""The lists to which a worker returns messages that it has not started."""

import json
from typing import Any

import pytest
from kombu import Connection

from morag_queue.agent.claim_request import ClaimLane
from morag_queue.agent.identity import Identity
from morag_queue.agent.transport import Transport
from morag_queue.agent.unacked import claim_of
from tests.broker.conftest import ScriptRunner


@pytest.fixture
def channel(runner: ScriptRunner, options: dict[str, Any]) -> Any:
    identity = Identity("w1", runner.keys.namespace, 60, incarnation="run-1")
    transport_options = {**options, "morag_queue": identity.client_name}
    with Connection(runner.client_url, transport=Transport, transport_options=transport_options) as connection:
        yield connection.channel()


def give_back(runner: ScriptRunner, channel: Any, lane: str, level: int = 4, **more: Any) -> None:
    """Claim a new message of that lane, and return it as a draining worker does."""
    runner.send(lane, level, **more)
    taken = runner.claim(lanes=[ClaimLane(lane, lane.partition(".")[0], is_own=True)])
    assert taken is not None
    *_, lane, level, ms = runner.held(taken.tag) or []
    channel.give_back([claim_of(taken.message, lane, level, ms / 1000)], shared=True)


def test_a_draining_worker_returns_work_to_the_shared_lane(runner: ScriptRunner, channel: Any) -> None:
    give_back(runner, channel, "cpu_standard.w1")

    assert len(runner.waiting("cpu_standard")) == 1


def test_a_draining_worker_keeps_gpu_work_out_of_the_lane_of_a_cpu_queue(runner: ScriptRunner, channel: Any) -> None:
    give_back(runner, channel, "cpu_standard.w1", headers={"morag_queue": {"requires": "gpu"}})

    assert (len(runner.waiting("cpu_standard.w1")), runner.waiting("cpu_standard")) == (1, [])


def test_a_message_with_a_priority_above_nine_returns_to_the_level_it_was_taken_from(
    runner: ScriptRunner, channel: Any
) -> None:
    give_back(runner, channel, "cpu_standard", level=12)

    (raw,) = runner.waiting("cpu_standard", 9)
    assert json.loads(raw)["properties"]["priority"] == 12
