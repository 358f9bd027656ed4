"""Findings about paused queues and workers out of service."""

from dataclasses import replace

import pytest

from morag_queue.core.doctor import Code, FleetFacts, Severity, diagnose
from morag_queue.core.model import Cordon, Pause, QueueType, WorkerStatus
from tests.core.fleets import NOW, fleet, queued, worker

CPU = QueueType.CPU_STANDARD


def found(code, snapshot):
    return [finding for finding in diagnose(FleetFacts(snapshot)) if finding.code is code]


@pytest.mark.parametrize(
    ("pause", "severity", "message"),
    [
        (
            Pause(who="ann@ops", at=NOW - 600, reason="disk full"), Severity.INFO,
            "cpu_standard was paused 10 min ago by ann@ops (disk full); 2 tasks wait in it",
        ),
        (
            Pause(who="ann@ops", at=NOW - 7200), Severity.WARNING,
            "cpu_standard was paused 2 h ago by ann@ops; 2 tasks wait in it",
        ),
        (Pause(), Severity.WARNING, "cpu_standard is paused; 2 tasks wait in it"),
    ],
)  # fmt: skip
def test_a_pause_is_reported_and_an_old_one_is_a_warning(pause, severity, message):
    snapshot = fleet(paused=frozenset({CPU}), pauses={CPU: pause}, lanes=(queued(CPU, 2),))
    (finding,) = found(Code.QUEUE_PAUSED, snapshot)
    assert (finding.severity, finding.subject, finding.message, finding.remedy) == (
        severity, "cpu_standard", message, "morag-queue resume cpu_standard",
    )  # fmt: skip


def cordoned(age, **more):
    placed = Cordon(state=WorkerStatus.CORDONED, who="ann@ops", at=NOW - age, **more)
    return replace(worker("w"), cordon=placed)


def test_a_cordon_older_than_an_hour_is_a_warning():
    assert not found(Code.WORKER_OUT_OF_SERVICE, fleet(cordoned(3600, reason="new disk")))
    (finding,) = found(Code.WORKER_OUT_OF_SERVICE, fleet(cordoned(7200, reason="new disk")))
    assert (finding.severity, finding.subject, finding.message, finding.remedy) == (
        Severity.WARNING,
        "w",
        "w is out of service, for 2 h: cordoned by ann@ops: new disk",
        "if it is needed again: morag-queue uncordon w",
    )


def test_a_cordon_that_ends_by_itself_is_not_forgotten():
    assert not found(Code.WORKER_OUT_OF_SERVICE, fleet(cordoned(7200, until=NOW + 60)))
