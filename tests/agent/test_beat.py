"""The heartbeat continues after any error, because a worker without one would look dead."""

from pathlib import Path

from celery import Celery

from morag_queue.agent.agent import Agent
from morag_queue.agent.identity import Identity
from morag_queue.core.model import Capability
from morag_queue.settings import load


def test_the_heartbeat_continues_after_an_unexpected_error(monkeypatch, caplog) -> None:
    settings = load({"agent.heartbeat_seconds": 0.01}, {}, Path("/")).settings
    agent = Agent(Celery(set_as_current=False), settings, Identity("w", "mq", 60, True), Capability.CPU, "0")
    beats: list[int] = []

    def beat() -> None:
        beats.append(len(beats))
        if len(beats) == 1:
            raise RuntimeError("unexpected")
        agent._stopping.set()

    monkeypatch.setattr(agent, "_beat", beat)
    agent._beat_forever()

    assert beats == [0, 1]
    assert "heartbeat: an unexpected error; trying again" in caplog.text
